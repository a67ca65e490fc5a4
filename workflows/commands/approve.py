"""``argotune approve``: approves or rejects a suspended run on a cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runs.status import RunStatus
    from workflows.runs.step import Step

EXAMPLES = """Examples:
  # Approve: package the adapter and roll it out
  argotune approve oncall-x7k2m
  # Reject: roll out nothing
  argotune approve oncall-x7k2m --no
  # Set a parameter that the suspended step of another Workflow waits for
  argotune approve my-run -p reason=tested
"""
YES, NO = "YES", "NO"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune approve``."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="Name of a run, or @latest")
    parser.add_argument("--no", action="store_true", help="Reject instead of approving")
    parser.add_argument("--step", default="", help="Step to approve, if several are suspended")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set a parameter of the suspended step",
    )
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Give the answers that the step waits for, and let it go on.

    Raises:
        InvalidInput: nothing waits, several steps do, or an answer is none that may be given.
        ApiFailure: the cluster can't be request, or refuses.
    """
    from workflows.cluster import connect, lookup
    from workflows.commands.run import pairs

    given = pairs(args.parameter, "-p")
    if given and args.no:
        raise InvalidInput(Problem("--no and -p", fix="give one of them"))
    api = connect.connect(args)
    found = lookup.find(api, args.name)
    step = _waiting(found, args.step)
    answers = _answers(step, given, NO if args.no else YES)
    told = ", ".join(f"{name}={value}" for name, value in answers.items()) or "go on"
    api.set_outputs(found.name, step.node, answers, f"answered by argotune approve: {told}")
    print(f"{found.name}: {step.key} answered: {told}")
    return 0


def _waiting(found: RunStatus, name: str) -> Step:
    """The step to answer."""
    waiting = [step for step in found.pending_approvals if not name or name == step.key]
    if len(waiting) == 1:
        return waiting[0]
    if waiting:
        names = ", ".join(step.key for step in waiting)
        raise InvalidInput(Problem(f"several steps of {found.name} wait: {names}", fix="name one with --step"))
    about = next((step for step in found.steps if step.type == "Suspend" and name in ("", step.key)), None)
    if about is not None:
        said = ", ".join(f"{key}={value}" for key, value in about.outputs.items())
        raise InvalidInput(Problem(f"{about.key} of {found.name} is answered already{f': {said}' if said else ''}"))
    others = "" if found.is_ended else f"; it is {found.phase}"
    raise InvalidInput(Problem(f"nothing waits for an answer in {found.name}{others}", fix="see argotune status"))


def _answers(step: Step, given: dict[str, str], otherwise: str) -> dict[str, str]:
    """An answer to each question; those that are not given are YES or NO."""
    if not step.parameters:
        if given or otherwise == NO:
            fix = "it can only go on; argotune stop NAME --cluster ends the run"
            raise InvalidInput(Problem(f"{step.key} asks nothing", fix=fix))
        return {}
    answers = {name: given.get(name, otherwise) for name in step.parameters}
    problems = [
        Problem(f"-p {name}: {step.key} does not ask that", fix=f"it asks {', '.join(step.parameters)}")
        for name in given
        if name not in step.parameters
    ]
    for name, options in step.parameters.items():
        if options and answers[name] not in options:
            problems.append(
                Problem(f"{name}={answers[name]}: no such answer", fix=f"-p {name}={' or '.join(options)}")
            )
        elif not options and name not in given:
            problems.append(Problem(f"{step.key} asks {name}, any text", fix=f"-p {name}=TEXT"))
    if problems:
        raise InvalidInput(problems)
    return answers
