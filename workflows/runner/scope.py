"""The values of Argo's tags: of the workflow, of a template's inputs, of finished tasks, of an item."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from workflows.argo.phase import Phase
from workflows.argo.tags import MissingValue, Scope, Unresolved, absent_alone, substitute
from workflows.argo.workflow import Arguments, Spec, Template, Workflow
from workflows.runner.state import Node, State, timestamp


def of_workflow(workflow: Workflow, state: State, now: float, *, ended: bool = False) -> dict[str, str | MissingValue]:
    """``{{workflow...}}``; when it has ended, its status and failures as its exit handler sees them."""
    metadata, spec = workflow.metadata, workflow.spec
    parameters = parameters_of(spec, state.parameters)
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
        # Argo quotes the JSON once more (strconv.Quote), so that it stays one word in any text.
        scope["workflow.failures"] = json.dumps(json.dumps(_failures(state)))
    for prefix, values in (
        ("parameters", parameters),
        ("labels", metadata.labels),
        ("annotations", metadata.annotations),
        ("outputs.parameters", state.outputs),
    ):
        scope |= {f"workflow.{prefix}.{name}": value for name, value in values.items()}
    return scope


def parameters_of(spec: Spec, given: Mapping[str, str]) -> dict[str, str]:
    """The workflow's parameters with their values; those without one are left out."""
    values = {
        p.name: given.get(p.name, p.value if p.value is not None else p.default) for p in spec.arguments.parameters
    }
    return {name: value for name, value in values.items() if value is not None}


def of_inputs(inputs: Mapping[str, str]) -> dict[str, str | MissingValue]:
    """``{{inputs.parameters...}}``."""
    listed = json.dumps([{"name": name, "value": value} for name, value in inputs.items()])
    return {"inputs.parameters": listed, **{f"inputs.parameters.{name}": value for name, value in inputs.items()}}


def of_leaf(state: State, template: Template, key: str) -> dict[str, str | MissingValue]:
    """What only a leaf knows of itself."""
    sources = {output.name: output.value_from.path for output in template.outputs.parameters if output.value_from}
    paths = {f"outputs.parameters.{name}.path": path for name, path in sources.items()}
    paths |= {f"outputs.artifacts.{artifact.name}.path": artifact.path for artifact in template.outputs.artifacts}
    return {"pod.name": pod_name(state, key), "node.name": f"{state.name}.{key}", **paths}


def of_task(prefix: str, name: str, template: Template, node: Node) -> dict[str, str | MissingValue]:
    """``{{tasks.NAME...}}`` of a task that has ended; of a fan-out, its outputs are JSON lists."""
    fans_out = node.type == "TaskGroup"
    tag = f"{prefix}.{name}"
    scope: dict[str, str | MissingValue] = {f"{tag}.status": str(node.phase), f"{tag}.id": node.key}
    if node.started_at is not None:
        scope[f"{tag}.startedAt"] = timestamp(node.started_at)
    if node.finished_at is not None:
        scope[f"{tag}.finishedAt"] = timestamp(node.finished_at)
    why = f"`{name}` is {node.phase}"
    scope[f"{tag}.exitCode"] = MissingValue(why) if node.exit_code is None else str(node.exit_code)
    scope[f"{tag}.outputs.result"] = MissingValue(why) if node.result is None else node.result
    for output in template.outputs.parameters:
        value = node.outputs.get(output.name, None if fans_out else output.default)
        scope[f"{tag}.outputs.parameters.{output.name}"] = MissingValue(why) if value is None else value
    if "parameters" in node.outputs and fans_out:
        scope[f"{tag}.outputs.parameters"] = node.outputs["parameters"]
    return scope


def of_item(item: Any) -> dict[str, str | MissingValue]:
    """``{{item}}`` and, of a map, ``{{item.key}}``."""
    scope: dict[str, str | MissingValue] = {"item": item_text(item)}
    if isinstance(item, dict):
        scope |= {f"item.{key}": item_text(value) for key, value in item.items()}
    return scope


def item_text(item: Any) -> str:
    """An item as Argo puts it into a text: text as it is, the rest as JSON."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def bind(template: Template, arguments: Arguments, scope: Scope, own: Scope) -> dict[str, str]:
    """The inputs of a template: arguments, else values and defaults of its own.

    An argument that is only the output of a task which did not run gives way to the default (Argo 4.0.7).

    Raises:
        Unresolved: an input has neither, or a tag has no value.
    """
    given = {argument.name: argument for argument in arguments.parameters}
    inputs = {}
    for wanted in template.inputs.parameters:
        fallback = wanted.value if wanted.value is not None else wanted.default
        argument = given.get(wanted.name)
        text = argument.value if argument and argument.value is not None else argument.default if argument else None
        absent = absent_alone(text, scope) if text is not None else None
        if text is not None and absent is None:
            inputs[wanted.name] = substitute(text, scope)
        elif fallback is not None:
            inputs[wanted.name] = substitute(fallback, own)
        else:
            why = f"{text} has no value: {absent.why}" if absent else "it was not supplied"
            raise Unresolved(f"inputs.parameters.{wanted.name}: {why}")
        if wanted.enum and inputs[wanted.name] not in wanted.enum:
            raise Unresolved(f"inputs.parameters.{wanted.name}: `{inputs[wanted.name]}` is not one of {wanted.enum}")
    return inputs


def gather(template: Template, nodes: Sequence[Node]) -> tuple[dict[str, str], str]:
    """Outputs of a fan-out: of each parameter, and of the results, a JSON list over the items that succeeded."""
    good = [node for node in nodes if node.phase is Phase.SUCCEEDED]
    outputs = {}
    for output in template.outputs.parameters:
        values = [node.outputs[output.name] for node in good if output.name in node.outputs]
        if values:
            outputs[output.name] = json.dumps(_as_json(values), ensure_ascii=False)
    if template.outputs.parameters:
        outputs["parameters"] = json.dumps([node.outputs for node in good if node.outputs], ensure_ascii=False)
    results = [node.result for node in good if node.result is not None]
    return outputs, json.dumps([_loaded(result, result) for result in results], ensure_ascii=False)


def _as_json(values: list[str]) -> list[Any]:
    """Lists and maps as such when all are; else all as text (Argo: ``aggregatedJSONValueList``)."""
    loaded = [_loaded(value, None) for value in values]
    return loaded if all(isinstance(value, list | dict) for value in loaded) else list(values)


def _loaded(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


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
    """``{{pod.name}}`` of a leaf."""
    return f"{state.name}-{key.replace('.', '-')}"
