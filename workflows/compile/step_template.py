"""A template of one of our steps: called as any of Hera's, it takes from the workflow what the call leaves out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from hera.workflows import Container, Parameter, Task

from workflows.compile.parameters import SUBMITTED
from workflows.errors import InvalidInput, Problem

Argument = Mapping[str, Any] | Parameter | Task
Arguments = Argument | Sequence[Argument]


class StepTemplate(Container):
    """Hera's ``Container`` whose inputs are the workflow's parameters of their names, unless a call gives others."""

    def __call__(self, *, arguments: Arguments = (), **fields: Any) -> Any:
        """Make a task of the DAG around it (a step, in Hera's ``Steps``); ``fields`` are those of Hera's ``Task``.

        Of a task among the arguments, the outputs that this step takes are handed on.

        Raises:
            InvalidInput: with each argument that the step does not take; Argo would pass over it.
        """
        declared: Any = self.inputs or []
        inputs = [str(item.name) for item in declared]
        values = {name: f"{{{{workflow.parameters.{name}}}}}" for name in inputs if name in SUBMITTED}
        given = values | _by_name(arguments, inputs)
        if wrong := [name for name in given if name not in inputs]:
            raise InvalidInput([_not_taken(str(self.name), name, inputs) for name in wrong])
        return super().__call__(arguments={name: given[name] for name in inputs if name in given}, **fields)


def _by_name(arguments: Arguments, inputs: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for item in [arguments] if isinstance(arguments, Mapping | Parameter | Task) else arguments:
        if isinstance(item, Task):
            given |= _handed_on(item, inputs)
        else:
            given |= dict(item) if isinstance(item, Mapping) else {str(item.name): item}
    return given


def _handed_on(task: Task, inputs: Sequence[str]) -> dict[str, Any]:
    try:
        outputs = task.get_outputs_as_arguments()
    except ValueError:
        outputs = []
    found = {str(output.name): output for output in outputs if output.name in inputs}
    if not found:
        fix = f"name the output: {task.name}.get_parameter(...); it takes: {', '.join(inputs) or 'nothing'}"
        raise InvalidInput(Problem(f"nothing that task {task.name} is known to give is taken", "arguments", fix=fix))
    return found


def _not_taken(step: str, name: str, inputs: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(name, inputs, 1)
    fix = f"did you mean {near[0]}?" if near else f"it takes: {', '.join(inputs) or 'nothing'}"
    return Problem(f"{step} takes no argument {name}", "arguments", fix=fix)
