"""The gate: what a Workspace asks of an adapter (``pipeline.evaluation``), rule by rule, and what came of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steps.evaluate.answer_metrics import Scores
from steps.runtime.entrypoint import settings


@settings
class Rules:
    """What an adapter must be like to go on."""

    max_loss_ratio: float = 1.0
    """The adapter's loss must be below this share of the base's."""
    confident: bool = False
    """Whether the upper end of that share's bootstrap interval must be below it too, not only what was measured."""
    min_exact_match: float | None = None
    """Share of the answers that must be as wanted, by exact match."""
    min_rouge_l: float | None = None
    """What ROUGE-L of the answers must reach on average."""
    max_regressions: float | None = None
    """Share of the rows, at most, on which the adapter's loss may be higher than the base's."""
    min_task_scores: dict[str, float] = field(default_factory=dict)
    """What tasks of lm-eval must reach (JSON map): by `TASK` their first metric, by `TASK/METRIC` this one."""
    better_than_previous: bool = True
    """Whether the loss must be below that of the adapter in service, where there is one."""


@dataclass(frozen=True)
class Measured:
    """What the rules go by."""

    loss_ratio: float
    """The adapter's loss as a share of the base's."""
    loss_ratio_high: float
    """Upper end of its interval."""
    regressions: float
    """Share of the rows on which the adapter's loss is higher than the base's."""
    scores: Scores | None = None
    """Of the adapter's answers; None where it answered nothing."""
    task_scores: Mapping[str, float | None] = field(default_factory=dict)
    """Of the adapter, by the names that the rules give them; None for what was not measured."""
    previous_loss_ratio: float | None = None
    """The adapter's loss as a share of that of the adapter in service; None where there is none."""


@dataclass(frozen=True)
class Outcome:
    """What came of one rule."""

    name: str
    """As the Workspace calls it."""
    wanted: str
    """``< 0.5``, say."""
    measured: float | None
    ok: bool

    def __str__(self) -> str:
        measured = "not measured" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} is {measured}, wanted {self.wanted}"


def judge(rules: Rules, measured: Measured) -> list[Outcome]:
    """The outcome of each rule that is asked for; the adapter passes when all are ok."""
    exact_match = measured.scores.exact_match if measured.scores else None
    rouge_l = measured.scores.rouge_l if measured.scores else None
    outcomes = [_below("maxLossRatio", rules.max_loss_ratio, measured.loss_ratio)]
    if rules.confident:
        outcomes.append(_below("confident", rules.max_loss_ratio, measured.loss_ratio_high))
    if rules.min_exact_match is not None:
        outcomes.append(_at_least("minExactMatch", rules.min_exact_match, exact_match))
    if rules.min_rouge_l is not None:
        outcomes.append(_at_least("minRougeL", rules.min_rouge_l, rouge_l))
    if rules.max_regressions is not None:
        share = measured.regressions
        wanted = f"<= {rules.max_regressions:g}"
        outcomes.append(Outcome("maxRegressions", wanted, _shown(share), share <= rules.max_regressions))
    for name, limit in rules.min_task_scores.items():
        outcomes.append(_at_least(f"minTaskScores.{name}", limit, measured.task_scores.get(name)))
    if rules.better_than_previous and measured.previous_loss_ratio is not None:
        outcomes.append(_below("betterThanPrevious", 1, measured.previous_loss_ratio))
    return outcomes


def reason(outcomes: Sequence[Outcome]) -> str:
    """The rules that said no, for people; empty where none did."""
    return "; ".join(str(outcome) for outcome in outcomes if not outcome.ok)


def _below(name: str, limit: float, value: float) -> Outcome:
    return Outcome(name, f"< {limit:g}", _shown(value), value < limit)


def _at_least(name: str, limit: float, value: float | None) -> Outcome:
    return Outcome(name, f">= {limit:g}", _shown(value), value is not None and value >= limit)


def _shown(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None
