"""Rules for the budget of a plan."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.plan.node_price import unknown_prices

PATH = "pipeline.budget.usd"


def problems(plan: Plan) -> Iterator[Problem]:
    """Yield a budget in USD that cannot be converted to hours."""
    if plan.tuning and plan.budget.usd and not plan.usd_per_hour:
        nodes = unknown_prices(plan) or "the existing nodes"
        fix = "set pipeline.budget.hours instead, or --set resource.usdPerHour=USD"
        if plan.resource.instance_type:
            prices = ", ".join(f"{name}: USD" for name in nodes.split(", "))
            fix += f", or prices: {{{prices}}} in the site profile"
        yield Problem(f"cannot be compared: the price of {nodes} is unknown", PATH, fix=fix)


def warnings(plan: Plan, *, local: bool) -> Iterator[Problem]:
    """Yield a budget that has no effect on this machine, which costs nothing."""
    if local and plan.tuning and plan.budget.usd and not plan.usd_per_hour:
        message = "has no effect locally: this machine has no price"
        yield Problem(message, PATH, fix="set pipeline.budget.hours, or --set resource.usdPerHour=USD")
