"""The gate: rules that an adapter must pass (``pipeline.evaluation``), and their outcomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steps.evaluate.answer_metrics import Scores
from steps.evaluate.settings import GateRules


@dataclass(frozen=True)
class Measurements:
    """Values that the rules are applied to."""

    loss_ratio: float
    """The adapter's loss divided by the base's."""
    loss_ratio_high: float
    """Upper bound of its confidence interval."""
    regressions: float
    """Share of rows on which the adapter's loss is higher than the base's."""
    scores: Scores | None = None
    """Mean scores of the adapter's answers; None if it answered nothing."""
    task_scores: Mapping[str, float | None] = field(default_factory=dict)
    """The adapter's task scores by the names used in the rules; None: not measured."""
    previous_loss_ratio: float | None = None
    """The adapter's loss divided by the deployed adapter's; None if no adapter is deployed."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one rule."""

    name: str
    """Name of the rule in the Workspace."""
    wanted: str
    """Required value, for example ``< 0.5``."""
    measured: float | None
    ok: bool

    def __str__(self) -> str:
        measured = "not measured" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.name} is {measured}, required {self.wanted}"


def judge(rules: GateRules, measured: Measurements) -> list[Outcome]:
    """Return the outcome of each rule that is set; the adapter passes if all are ok."""
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
        limit = f"<= {rules.max_regressions:g}"
        outcomes.append(Outcome("maxRegressions", limit, _round(share), share <= rules.max_regressions))
    for name, minimum in rules.min_task_scores.items():
        outcomes.append(_at_least(f"minTaskScores.{name}", minimum, measured.task_scores.get(name)))
    if rules.better_than_previous and measured.previous_loss_ratio is not None:
        outcomes.append(_below("betterThanPrevious", 1, measured.previous_loss_ratio))
    return outcomes


def reason(outcomes: Sequence[Outcome]) -> str:
    """Return the failed rules as text; empty if all passed."""
    return "; ".join(str(outcome) for outcome in outcomes if not outcome.ok)


def _below(name: str, limit: float, value: float) -> Outcome:
    return Outcome(name, f"< {limit:g}", _round(value), value < limit)


def _at_least(name: str, limit: float, value: float | None) -> Outcome:
    return Outcome(name, f">= {limit:g}", _round(value), value is not None and value >= limit)


def _round(value: float | None) -> float | None:
    return round(value, 4) if value is not None and math.isfinite(value) else None
