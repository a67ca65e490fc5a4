"""Comparison of an estimate with the budget of its plan."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.errors import Problem
from workflows.estimate.plan_estimate import Estimate
from workflows.plan.model import Plan


def budget_warnings(plan: Plan, estimate: Estimate) -> Iterator[Problem]:
    """Yield a budget that the estimated training exceeds; nothing if its duration is unknown.

    The estimate is an upper bound: it counts every row with the maximum number of tokens.
    """
    hours = estimate.time.total_hours if estimate.time else None
    budget = estimate.budget_hours
    if not plan.tuning or not budget or hours is None or hours <= budget:
        return
    path, limit = _tightest(plan, budget)
    usd = estimate.max_cost(hours)
    price = "" if usd is None else f", {usd:.2f} USD"
    message = (
        f"{limit} is less than the estimate ({hours:.2f} hours at most{price}): the run may end before it is done"
    )
    yield Problem(message, path, fix="increase the budget, or reduce the epochs, max_steps or rows")


def _tightest(plan: Plan, budget: float) -> tuple[str, str]:
    """Return the path and the text of the field that limits the run."""
    if plan.budget.hours and plan.budget.hours <= budget:
        return "pipeline.budget.hours", f"{plan.budget.hours:g} hours"
    return "pipeline.budget.usd", f"{plan.budget.usd:g} USD ({budget:.2f} hours)"
