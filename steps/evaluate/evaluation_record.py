"""Rows, answers and tasks in ``report/evaluation.json``: base, adapter and deployed adapter side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.data.chat_tokens import Message, Prepared
from steps.evaluate.answer_metrics import Scores
from steps.evaluate.answers import Answer
from steps.evaluate.first_tokens import FirstTokens
from steps.evaluate.lm_tasks import TaskScore

MAX_REGRESSIONS = 5
"""Rows listed on which the adapter is worse than the base, or than the deployed adapter."""

MAX_QUESTION_LENGTH = 1000
"""Characters of a question that are recorded."""


@dataclass(frozen=True)
class Measurements:
    """Measurements of one model."""

    losses: list[float]
    """Loss of each row, summed over its tokens."""
    answers: list[Answer]
    """Answers to the sampled rows."""
    scores: list[Scores]
    """Scores of these answers."""
    tasks: list[TaskScore] = field(default_factory=list)
    """Metrics of lm-eval's tasks."""


Models = Mapping[str, Measurements]
"""``base``, ``adapter`` and, if an adapter is deployed, ``previous``."""


def measurements(
    models: Models,
    means: Mapping[str, Scores | None],
    prepared: Prepared,
    messages: Sequence[Sequence[Message]],
    chosen: Sequence[Sequence[Message]],
    first: Sequence[FirstTokens | None],
) -> dict[str, Any]:
    """Return the results of all models: for each row, each sampled answer with its first tokens, and each task."""
    return {
        **_rows(models, prepared, messages),
        "samples": _samples(models, chosen, first),
        "scores": _scores(means),
        "tasks": _tasks(models),
    }


def _rows(models: Models, prepared: Prepared, messages: Sequence[Sequence[Message]]) -> dict[str, Any]:
    """Return the loss of each row by each model, and the rows on which the adapter is worse than the others."""
    losses: list[dict[str, Any]] = [
        {
            "row": number,
            "question": question(messages[number]),
            "tokens": tokens.learned,
            **{f"{name}_loss": round(model.losses[idx] / tokens.learned, 4) for name, model in models.items()},
        }
        for idx, (number, tokens) in enumerate(zip(prepared.numbers, prepared.rows, strict=True))
    ]
    return {
        "rows": len(losses),
        "tokens": sum(row["tokens"] for row in losses),
        "row_losses": losses,
        "regressions": _regressions(losses, "base"),
        **({"regressions_against_previous": _regressions(losses, "previous")} if "previous" in models else {}),
    }


def _samples(
    models: Models, chosen: Sequence[Sequence[Message]], first: Sequence[FirstTokens | None]
) -> list[dict[str, Any]]:
    """Return the answers of each model to the sampled rows, with their scores."""
    return [
        {
            "question": question(row[:-1]),
            "messages": row[:-1],
            "reference": row[-1]["content"],
            **{f"{name}_answer": model.answers[idx].text for name, model in models.items()},
            "scores": {name: dataclasses.asdict(model.scores[idx]) for name, model in models.items()},
            **({"first_tokens": first[idx]} if first[idx] else {}),
        }
        for idx, row in enumerate(chosen)
    ]


def _scores(means: Mapping[str, Scores | None]) -> dict[str, Any]:
    """Return the mean scores by model; empty if nothing was answered."""
    return {name: dataclasses.asdict(mean) for name, mean in means.items() if mean}


def _tasks(models: Models) -> list[dict[str, Any]]:
    """Return each metric of lm-eval's tasks by each model."""
    return [
        {
            "task": score.task,
            "metric": score.metric,
            "filter": score.filter,
            "name": score.name,
            "samples": score.samples,
            "higher_is_better": score.higher_is_better,
            **{name: round(model.tasks[idx].value, 4) for name, model in models.items()},
            "stderr": {name: model.tasks[idx].stderr for name, model in models.items()},
        }
        for idx, score in enumerate(models["base"].tasks)
    ]


def format_tasks(models: Models) -> list[str]:
    """Return a log line for each metric of lm-eval's tasks."""
    pairs = zip(models["base"].tasks, models["adapter"].tasks, strict=True)
    return [f"{base.name} {base.value:.4g} -> {adapter.value:.4g} ({base.samples} samples)" for base, adapter in pairs]


def question(row: Sequence[Message]) -> str:
    """Return the last user message, or the beginning of a plain text row."""
    user_messages = [message for message in reversed(row) if message["role"] == "user"]
    return next((str(message["content"])[:MAX_QUESTION_LENGTH] for message in [*user_messages, *row[:1]]), "")


def _regressions(losses: Sequence[dict[str, Any]], other: str) -> list[dict[str, Any]]:
    """Return the rows on which the adapter's loss exceeds another model's most, worst first."""
    worse = [row for row in losses if row["adapter_loss"] > row[f"{other}_loss"]]
    return sorted(worse, key=lambda row: row[f"{other}_loss"] - row["adapter_loss"])[:MAX_REGRESSIONS]
