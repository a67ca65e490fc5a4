"""What ``report/evaluation.json`` tells of rows and answers: base, adapter and the one in service, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.data.chat_tokens import Message, Prepared
from steps.evaluate.answer_metrics import Scores
from steps.evaluate.lm_tasks import TaskScore

WORST = 5
"""Rows listed on which the adapter does worse than its base, or than the adapter in service."""

MAX_QUESTION_LENGTH = 1000
"""Characters of a question that are told."""


@dataclass(frozen=True)
class Measured:
    """Of one model."""

    losses: list[float]
    """Of each row, summed over its tokens."""
    answers: list[str]
    """To the rows that were chosen."""
    scores: list[Scores]
    """Of these answers."""
    tasks: list[TaskScore] = field(default_factory=list)
    """Metrics of lm-eval's tasks."""


Models = Mapping[str, Measured]
"""``base``, ``adapter`` and, where there is one in service, ``previous``."""


def rows(models: Models, prepared: Prepared, given: Sequence[Sequence[Message]]) -> dict[str, Any]:
    """The loss of each row by each model, and the rows on which the adapter does worse than the others."""
    measured: list[dict[str, Any]] = [
        {
            "row": number,
            "question": question(given[number]),
            "tokens": tokens.learned,
            **{f"{name}_loss": round(model.losses[place] / tokens.learned, 4) for name, model in models.items()},
        }
        for place, (number, tokens) in enumerate(zip(prepared.numbers, prepared.rows, strict=True))
    ]
    return {
        "rows": len(measured),
        "tokens": sum(row["tokens"] for row in measured),
        "row_losses": measured,
        "regressions": _worse(measured, "base"),
        **({"regressions_against_previous": _worse(measured, "previous")} if "previous" in models else {}),
    }


def samples(models: Models, chosen: Sequence[Sequence[Message]]) -> list[dict[str, Any]]:
    """What each model answers, with the scores of each answer."""
    return [
        {
            "question": question(row[:-1]),
            "messages": row[:-1],
            "reference": row[-1]["content"],
            **{f"{name}_answer": model.answers[place] for name, model in models.items()},
            "scores": {name: _plain(model.scores[place]) for name, model in models.items()},
        }
        for place, row in enumerate(chosen)
    ]


def scores(means: Mapping[str, Scores | None]) -> dict[str, Any]:
    """Means of the scores by model; nothing where nothing was answered."""
    return {name: _plain(mean) for name, mean in means.items() if mean}


def tasks(models: Models) -> list[dict[str, Any]]:
    """Each metric of lm-eval's tasks, by each model."""
    return [
        {
            "task": score.task,
            "metric": score.metric,
            "filter": score.filter,
            "name": score.name,
            "samples": score.samples,
            "higher_is_better": score.higher_is_better,
            **{name: round(model.tasks[place].value, 4) for name, model in models.items()},
            "stderr": {name: model.tasks[place].stderr for name, model in models.items()},
        }
        for place, score in enumerate(models["base"].tasks)
    ]


def task_lines(models: Models) -> list[str]:
    """The same for people."""
    pairs = zip(models["base"].tasks, models["adapter"].tasks, strict=True)
    return [f"{base.name} {base.value:.4g} -> {adapter.value:.4g} ({base.samples} samples)" for base, adapter in pairs]


def question(row: Sequence[Message]) -> str:
    """The last thing the user says, or the beginning of a row of mere text."""
    asked = [message for message in reversed(row) if message["role"] == "user"]
    return next((str(message["content"])[:MAX_QUESTION_LENGTH] for message in [*asked, *row[:1]]), "")


def _worse(measured: Sequence[dict[str, Any]], other: str) -> list[dict[str, Any]]:
    """The rows on which the adapter's loss is most above that of another model, worst first."""
    worse = [row for row in measured if row["adapter_loss"] > row[f"{other}_loss"]]
    return sorted(worse, key=lambda row: row[f"{other}_loss"] - row["adapter_loss"])[:WORST]


def _plain(one: Scores) -> dict[str, float]:
    return {"exact_match": one.exact_match, "rouge_l": one.rouge_l}
