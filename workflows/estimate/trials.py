"""The trials of a search in the estimate: the largest one for memory, all of them for time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workflows.estimate.cost import Time
from workflows.plan.model import Plan, Tuning
from workflows.spec.search import extremes, num_trainings, rungs

MEMORY_AND_TIME = {"rank": "rank", "batchSize": "batch_size", "dropout": "dropout", "epochs": "epochs"}
"""Parameters whose largest value needs the most memory or time, and their fields."""


def largest_trial(plan: Plan) -> Tuning | None:
    """Return the tuning of a plan, with the largest values of its search; None without tuning."""
    if not plan.tuning or not plan.search:
        return plan.tuning
    spaces = plan.search.parameters
    values: dict[str, Any] = {
        field: type(getattr(plan.tuning, field))(extremes(spaces[name])[1])
        for name, field in MEMORY_AND_TIME.items()
        if name in spaces
    }
    if "maxSteps" in spaces:
        low, high = extremes(spaces["maxSteps"])
        # -1 is no limit: the epochs count.
        values["max_steps"] = int(high) if low > 0 else -1
    return plan.tuning.model_copy(update=values)


def with_trials(time: Time, plan: Plan) -> Time:
    """Return the time of all trials, from that of the largest one."""
    if not plan.search:
        return time
    factor = num_trainings(plan.search) / plan.search.parallel
    hours = time.training_hours
    return replace(
        time,
        hours_per_thousand_rows=factor * time.hours_per_thousand_rows,
        training_hours=None if hours is None else factor * hours,
    )


def tune_hours(plan: Plan, training_hours: float) -> float:
    """Return the hours of one tune pod, from those of all trials."""
    if not plan.search:
        return training_hours
    return training_hours * plan.search.parallel / sum(rung.trials for rung in rungs(plan.search))
