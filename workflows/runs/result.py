"""The end of a run on the terminal: served answers, endpoint, image and verdict."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from steps.runtime import terminal
from workflows.runs import answers
from workflows.runs.status import RunStatus

MAX_SAMPLES = 2
"""Held-out questions whose answers are shown at the end, besides the question of the rollout."""


def print_answers(run: RunStatus, hint: str = "", samples: Sequence[answers.Sample] = ()) -> None:
    """Print what base model and adapter answered, and the endpoint; nothing if the run serves nothing.

    Args:
        run: the run.
        hint: text after the endpoint.
        samples: held-out questions of the evaluation, for a terminal; the one that the server answered is omitted.
    """
    rollout = run.outputs("rollout")
    if not rollout.get("endpoint"):
        return
    question = rollout.get("question", "")
    # The evaluation records the beginning of a long question.
    others = [sample for sample in samples if not question.startswith(sample.question)][:MAX_SAMPLES]
    answers.print_answers(question, rollout.get("base-answer", ""), rollout.get("answer", ""), samples=others)
    print(terminal.escape(f"\n{'endpoint:':11} {rollout['endpoint']}{hint}"))


def print_verdict(run: RunStatus, next_steps: Mapping[str, str], log: str = "") -> int:
    """Print why a run did not succeed; return its exit code.

    Args:
        run: a run that has ended.
        next_steps: what the user can do, by label (``fix``, ``see``), for a run that failed.
        log: last lines of the failed step.
    """
    if run.verdict:
        print(terminal.escape(f"error: {run.verdict}"), file=sys.stderr)
    if run.verdict and run.phase != "Succeeded":
        lines = [log] if log else []
        lines += [f"    {label}: {text}" for label, text in next_steps.items()]
        print(terminal.escape("\n".join(lines)), file=sys.stderr)
    return run.exit_code
