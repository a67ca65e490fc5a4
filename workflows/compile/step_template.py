"""The template of a step: like Hera's, with inputs that default to the workflow's parameters."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from hera.workflows import Container, Parameter, Task
from hera.workflows._context import _context

from workflows.compile.parameters import SUBMITTED
from workflows.errors import InvalidInput, Problem, use_one_of

Argument = Mapping[str, Any] | Parameter | Task
Arguments = Argument | Sequence[Argument]


class StepTemplate(Container):
    """Hera's ``Container``, whose inputs default to the workflow's parameters of the same names."""

    def __call__(self, *, arguments: Arguments = (), **fields: Any) -> Any:
        """Add a task to the enclosing DAG (a step, in Hera's ``Steps``); ``fields`` are those of Hera's ``Task``.

        A task among the arguments passes its outputs that are inputs of this step.

        Raises:
            InvalidInput: with each argument that is no input of the step; Argo would ignore it.
        """
        items: Any = self.inputs or []
        declared = [item for item in items if isinstance(item, Parameter)]
        inputs = [str(item.name) for item in declared]
        optional = {str(item.name) for item in declared if item.default is not None} - _workflow_parameters()
        submitted = [name for name in inputs if name in SUBMITTED and name not in optional]
        values = {name: f"{{{{workflow.parameters.{name}}}}}" for name in submitted}
        values |= _by_name(arguments, inputs)
        if unknown := [name for name in values if name not in inputs]:
            raise InvalidInput([_unknown_argument(str(self.name), name, inputs) for name in unknown])
        return super().__call__(arguments={name: values[name] for name in inputs if name in values}, **fields)


def _workflow_parameters() -> set[str]:
    """Return the names of the parameters of the enclosing Workflow."""
    pieces = _context.pieces
    arguments: Any = getattr(pieces[0], "arguments", None) if pieces else None
    return {str(item.name) for item in arguments or () if isinstance(item, Parameter)}


def _by_name(arguments: Arguments, inputs: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in [arguments] if isinstance(arguments, Mapping | Parameter | Task) else arguments:
        if isinstance(item, Task):
            values |= _task_outputs(item, inputs)
        else:
            values |= dict(item) if isinstance(item, Mapping) else {str(item.name): item}
    return values


def _task_outputs(task: Task, inputs: Sequence[str]) -> dict[str, Any]:
    try:
        outputs = task.get_outputs_as_arguments()
    except ValueError:
        outputs = []
    matches = {str(output.name): output for output in outputs if output.name in inputs}
    if not matches:
        fix = f"name the output: {task.name}.get_parameter(...); the step's inputs are: {', '.join(inputs) or 'none'}"
        raise InvalidInput(Problem(f"no declared output of task {task.name} is an input", "arguments", fix=fix))
    return matches


def _unknown_argument(step: str, name: str, inputs: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(name, inputs, 1)
    fix = f"did you mean {near[0]}?" if near else use_one_of(inputs, "remove it")
    return Problem(f"{step} has no input {name}", "arguments", fix=fix)
