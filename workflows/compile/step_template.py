"""A template of one of our steps: called as any of Hera's, it takes from the workflow what the call leaves out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hera.workflows import Container, Parameter

TUNING_INPUTS = ("epochs", "max-steps", "learning-rate", "batch-size", "rank", "alpha")
SUBMITTED = ("data-urls", *TUNING_INPUTS, "image", "push")
"""Parameters of a workflow, which may be set when it is submitted; inputs of steps have the same names."""

Arguments = Mapping[str, Any] | Sequence[Parameter | Mapping[str, Any]]


class StepTemplate(Container):
    """Hera's ``Container`` whose inputs are the workflow's parameters of their names, unless a call gives others."""

    def __call__(self, *, arguments: Arguments = (), **fields: Any) -> Any:
        """Make a task of the DAG around it (a step, in Hera's ``Steps``); ``fields`` are those of Hera's ``Task``."""
        inputs: Any = self.inputs or []
        values = {item.name: f"{{{{workflow.parameters.{item.name}}}}}" for item in inputs if item.name in SUBMITTED}
        given = values | _by_name(arguments)
        order = [item.name for item in inputs if item.name in given]
        # What the step doesn't take stays, for the linter to tell.
        return super().__call__(arguments={name: given[name] for name in (*order, *given)}, **fields)


def _by_name(arguments: Arguments) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for item in [arguments] if isinstance(arguments, Mapping) else arguments:
        given |= dict(item) if isinstance(item, Mapping) else {str(item.name): item}
    return given
