"""Values of Argo's tags: of the workflow, a template's inputs, finished tasks, and an item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from steps.runtime.json_text import parse_json
from workflows.argo.phase import Phase
from workflows.argo.tags import MissingValue, Scope, Unresolved, item_text, missing_value, substitute
from workflows.argo.workflow import Arguments, Spec, Template, Workflow
from workflows.runner.state import Node, State, timestamp


def workflow_scope(
    workflow: Workflow, state: State, now: float, *, ended: bool = False
) -> dict[str, str | MissingValue]:
    """Return ``{{workflow...}}``; ``ended`` adds the status and failures for the exit handler."""
    metadata, spec = workflow.metadata, workflow.spec
    parameters = parameter_values(spec, state.parameters)
    listed = json.dumps([{"name": name, "value": value} for name, value in parameters.items()])
    scope: dict[str, str | MissingValue] = {
        "workflow.name": state.name,
        "workflow.uid": state.uid,
        "workflow.namespace": metadata.namespace,
        "workflow.serviceAccountName": "default",
        "workflow.mainEntrypoint": spec.entrypoint,
        "workflow.creationTimestamp": timestamp(state.created_at),
        "workflow.creationTimestamp.RFC3339": timestamp(state.created_at),
        "workflow.duration": f"{now - (state.started_at or now):f}",
        "workflow.status": str(state.main) if ended else "Running",
        "workflow.parameters": listed,
        "workflow.parameters.json": listed,
    }
    if ended:
        # Argo quotes the JSON again (strconv.Quote), so that it is a single word in a command.
        scope["workflow.failures"] = json.dumps(json.dumps(_failures(state)))
    for prefix, values in (
        ("parameters", parameters),
        ("labels", metadata.labels),
        ("annotations", metadata.annotations),
        ("outputs.parameters", state.outputs),
    ):
        scope |= {f"workflow.{prefix}.{name}": value for name, value in values.items()}
    return scope


def parameter_values(spec: Spec, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the values of the workflow's parameters; those without a value are omitted."""
    values = {
        p.name: overrides.get(p.name, p.value if p.value is not None else p.default) for p in spec.arguments.parameters
    }
    return {name: value for name, value in values.items() if value is not None}


def input_scope(inputs: Mapping[str, str]) -> dict[str, str | MissingValue]:
    """Return ``{{inputs.parameters...}}``."""
    listed = json.dumps([{"name": name, "value": value} for name, value in inputs.items()])
    return {"inputs.parameters": listed, **{f"inputs.parameters.{name}": value for name, value in inputs.items()}}


def pod_scope(state: State, template: Template, key: str) -> dict[str, str | MissingValue]:
    """Return the tags that only a pod has: its names and the paths of its outputs."""
    sources = {output.name: output.value_from.path for output in template.outputs.parameters if output.value_from}
    paths = {f"outputs.parameters.{name}.path": path for name, path in sources.items()}
    paths |= {f"inputs.artifacts.{artifact.name}.path": artifact.path for artifact in template.inputs.artifacts}
    paths |= {f"outputs.artifacts.{artifact.name}.path": artifact.path for artifact in template.outputs.artifacts}
    return {"pod.name": pod_name(state, key), "node.name": f"{state.name}.{key}", **paths}


def task_scope(prefix: str, name: str, template: Template, node: Node) -> dict[str, str | MissingValue]:
    """Return ``{{tasks.NAME...}}`` of a task that has ended; the outputs of a fan-out are JSON lists."""
    fans_out = node.type == "TaskGroup"
    tag = f"{prefix}.{name}"
    scope: dict[str, str | MissingValue] = {f"{tag}.status": str(node.phase), f"{tag}.id": node.key}
    if node.started_at is not None:
        scope[f"{tag}.startedAt"] = timestamp(node.started_at)
    if node.finished_at is not None:
        scope[f"{tag}.finishedAt"] = timestamp(node.finished_at)
    reason = f"`{name}` is {node.phase}"
    scope[f"{tag}.exitCode"] = MissingValue(reason) if node.exit_code is None else str(node.exit_code)
    scope[f"{tag}.outputs.result"] = MissingValue(reason) if node.result is None else node.result
    for output in template.outputs.parameters:
        value = node.outputs.get(output.name, None if fans_out else output.default)
        scope[f"{tag}.outputs.parameters.{output.name}"] = MissingValue(reason) if value is None else value
    if "parameters" in node.outputs and fans_out:
        scope[f"{tag}.outputs.parameters"] = node.outputs["parameters"]
    return scope


def item_scope(item: Any) -> dict[str, str | MissingValue]:
    """Return ``{{item}}`` and the ``{{item.key}}`` of a mapping."""
    scope: dict[str, str | MissingValue] = {"item": item_text(item)}
    if isinstance(item, dict):
        scope |= {f"item.{key}": item_text(value) for key, value in item.items()}
    return scope


def bind_inputs(template: Template, arguments: Arguments, scope: Scope, template_scope: Scope) -> dict[str, str]:
    """Return the inputs of a template: the arguments, else its own values and defaults.

    The default also replaces an argument that is only the output of a task that did not run (Argo 4.0.7).

    Raises:
        Unresolved: an input has neither, or a tag has no value.
    """
    by_name = {argument.name: argument for argument in arguments.parameters}
    inputs = {}
    for parameter in template.inputs.parameters:
        default = parameter.value if parameter.value is not None else parameter.default
        argument = by_name.get(parameter.name)
        text = argument.value if argument and argument.value is not None else argument.default if argument else None
        missing = missing_value(text, scope) if text is not None else None
        if text is not None and missing is None:
            value = substitute(text, scope)
        elif default is not None:
            value = substitute(default, template_scope)
        else:
            reason = f"{text} has no value: {missing.reason}" if missing else "no value"
            raise Unresolved(f"inputs.parameters.{parameter.name}: {reason}")
        if parameter.enum and value not in parameter.enum:
            raise Unresolved(f"inputs.parameters.{parameter.name}: `{value}` is not one of {parameter.enum}")
        inputs[parameter.name] = value
    return inputs


def gather_outputs(template: Template, nodes: Sequence[Node]) -> tuple[dict[str, str], str]:
    """Return the outputs and the result of a fan-out, each a JSON list over the items that succeeded."""
    succeeded = [node for node in nodes if node.phase is Phase.SUCCEEDED]
    outputs = {}
    for output in template.outputs.parameters:
        values = [node.outputs[output.name] for node in succeeded if output.name in node.outputs]
        if values:
            outputs[output.name] = json.dumps(_parse_values(values), ensure_ascii=False)
    if template.outputs.parameters:
        outputs["parameters"] = json.dumps([node.outputs for node in succeeded if node.outputs], ensure_ascii=False)
    results = [node.result for node in succeeded if node.result is not None]
    return outputs, json.dumps([_parse_json(result, result) for result in results], ensure_ascii=False)


def _parse_values(values: list[str]) -> list[Any]:
    """Parse the values if all are JSON lists or mappings (Argo: ``aggregatedJSONValueList``)."""
    parsed = [_parse_json(value, None) for value in values]
    return parsed if all(isinstance(value, list | dict) for value in parsed) else list(values)


def _parse_json(text: str, default: Any) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return default


def _failures(state: State) -> list[dict[str, str]] | None:
    failed = [node for node in state.nodes.values() if node.phase.is_failure and not node.key.startswith("onExit")]
    return [
        {
            "displayName": node.task,
            "message": node.message,
            "templateName": node.template,
            "phase": str(node.phase),
            "podName": pod_name(state, node.key),
            "finishedAt": timestamp(node.finished_at) if node.finished_at else "",
        }
        for node in failed
    ] or None


def pod_name(state: State, key: str) -> str:
    """Return ``{{pod.name}}`` of a node."""
    return f"{state.name}-{key.replace('.', '-')}"
