"""Memory, time and cost of a plan, before anything is spent. docs/ESTIMATES.md has the formulas and their errors."""

from workflows.estimate.budget import budget_warnings
from workflows.estimate.local_machine import memory_warnings
from workflows.estimate.plan_estimate import Estimate, estimate, processes
from workflows.estimate.refusals import refusals, too_small
from workflows.estimate.show import as_dict, as_text

__all__ = [
    "Estimate",
    "as_dict",
    "as_text",
    "budget_warnings",
    "estimate",
    "memory_warnings",
    "processes",
    "refusals",
    "too_small",
]
