"""The evaluation in the report: metrics, gate, answers side by side, and rows on which the adapter is worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steps.report.formatting import format_number, format_percent
from steps.report.report_data import Answer, Evaluation, Regression, ReportData
from steps.runtime.json_text import number

MAX_ANSWERS = 50
MAX_EXPONENT = 700
LIVE = "Live adapter"


@dataclass(frozen=True)
class Column:
    """One answer to a question; ``kind`` is the CSS class."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True)
class Card:
    """A question and the answers to it."""

    question: str
    note: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; ``other`` is the model that the adapter is compared with."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    other: str = ""


def evaluation_context(data: ReportData) -> dict[str, Any]:
    """Return the variables of ``templates/evaluation.html.jinja``."""
    answers = data.evaluation.answers
    return {
        "evaluation": _evaluation_section(data),
        "cards": [*_endpoint_card(data), *(_card(answer) for answer in answers[:MAX_ANSWERS])],
        "num_more_answers": len(answers) - MAX_ANSWERS,
        "agreement": data.value("rollout", "agreement"),
        "regressions": [
            *_regressions(data.evaluation.regressions, "the base model"),
            *_regressions(data.evaluation.regressions_against_previous, "the live adapter"),
        ],
    }


def _evaluation_section(data: ReportData) -> dict[str, Any]:
    evaluation = data.evaluation
    if evaluation.base_loss is None and evaluation.adapter_loss is None:
        return {}
    table = _metrics(evaluation)
    return {
        "head": table.head,
        "rows": table.rows,
        "notes": _notes(evaluation),
        "leaked": number(data.manifest.get("held_out_rows_in_train")),
        "rules": [
            [rule.name, rule.required, format_number(rule.measured), "yes" if rule.passed else "no"]
            for rule in evaluation.rules
        ],
    }


def _metrics(evaluation: Evaluation) -> Table:
    """Return the metrics of the base model, the adapter, and the previously live adapter if it was evaluated."""
    base, adapter = evaluation.base_perplexity, evaluation.adapter_perplexity
    ratio = adapter / base if adapter and base else None
    head = ["Metric", "Base model", "Adapter", "Adapter / base"]
    rows = [
        [
            "Loss",
            *map(format_number, (evaluation.base_loss, evaluation.adapter_loss)),
            format_percent(evaluation.ratio),
        ],
        ["Perplexity", *map(format_number, (base, adapter)), format_percent(ratio)],
    ]
    for name, scores in evaluation.scores.items():
        rows.append([name, *(format_number(scores.get(model)) for model in ("base", "adapter")), ""])
    if (loss := evaluation.previous_loss) is not None:
        head.append(LIVE)
        previous = [loss, math.exp(min(loss, MAX_EXPONENT)), *(s.get("previous") for s in evaluation.scores.values())]
        for row, value in zip(rows, previous, strict=True):
            row.append(format_number(value))
    return Table(head, rows)


def _notes(evaluation: Evaluation) -> str:
    notes = [f"Measured on {format_number(evaluation.rows)} held-out rows."] if evaluation.rows is not None else []
    if evaluation.ratio_low is not None and evaluation.ratio_high is not None:
        level = f" ({format_percent(evaluation.confidence)} confidence)" if evaluation.confidence is not None else ""
        interval = f"{format_percent(evaluation.ratio_low)} to {format_percent(evaluation.ratio_high)}"
        notes.append(f"The adapter's loss is {interval} of the base model's{level}.")
    notes.append("Lower loss and perplexity are better." if evaluation.scores else "Lower is better.")
    return " ".join(notes)


def _endpoint_card(data: ReportData) -> list[Card]:
    adapter, base = data.value("rollout", "answer"), data.value("rollout", "base_answer")
    question = data.value("rollout", "question")
    return [_card(Answer(question, "", base, adapter), "sent to the endpoint")] if adapter else []


def _card(answer: Answer, note: str = "") -> Card:
    columns = [Column("base", "Base model", answer.base), Column("adapter", "Adapter", answer.adapter)]
    if answer.previous:
        columns.append(Column("previous", LIVE, answer.previous))
    if answer.reference:
        columns.append(Column("reference", "Reference answer", answer.reference))
    return Card(answer.question, note, columns)


def _regressions(regressions: Sequence[Regression], other: str) -> list[Table]:
    worst = regressions[:MAX_ANSWERS]
    has_previous = any(row.previous_loss is not None for row in worst)
    head = ["Question", "Base loss", "Adapter loss"] + (["Live adapter loss"] if has_previous else [])
    rows = [
        [row.question, format_number(row.base_loss), format_number(row.adapter_loss)]
        + ([format_number(row.previous_loss)] if has_previous else [])
        for row in worst
    ]
    return [Table(head, rows, other)] if rows else []
