"""A Workflow document read into a ``RunStatus``. Pure: nothing here accesses a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steps.runtime import termination
from steps.serving import benchmark_result
from workflows.cluster.nodes import Node, parse_time, pod_name, read_nodes
from workflows.runs import gpu_time
from workflows.runs.status import BENCHMARK, NONE, TUNE_SECONDS, RunStatus
from workflows.runs.step import EXIT_PREFIX, Attempt, Step

_NO_RETRY = ("No more retries left", "retryStrategy.expression evaluated to false")
"""Messages of a Retry node that hide why its last attempt failed."""
_LEAVES = ("Pod", "Retry", "Suspend", "Skipped", "Container", "HTTP", "Plugin")


def read_run(workflow: Mapping[str, Any]) -> RunStatus:
    """Return the status of a run; what its controller has not written yet is undecided."""
    metadata, status = workflow["metadata"], workflow.get("status") or {}
    spec = status.get("storedWorkflowTemplateSpec") or workflow.get("spec") or {}
    nodes, unreadable = read_nodes(workflow)
    steps = read_steps(workflow, spec, nodes)
    message = str(status.get("message") or unreadable)
    shutdown = (workflow.get("spec") or {}).get("shutdown") or spec.get("shutdown")
    time_limit_reached = _is_time_limit_reached(spec, steps)
    return RunStatus(
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or ""),
        workspace=str((metadata.get("labels") or {}).get("argotune.dev/workspace") or ""),
        instance=_instance(spec),
        phase=str(status.get("phase") or "Pending"),
        message=message,
        progress=str(status.get("progress") or ""),
        expected_tune_seconds=_expected_seconds(metadata),
        gpu_nodes=gpu_time.nodes_from_annotations(metadata.get("annotations") or {}),
        benchmark=benchmark_result.from_text(str((metadata.get("annotations") or {}).get(BENCHMARK, ""))),
        created=parse_time(metadata.get("creationTimestamp")),
        started=parse_time(status.get("startedAt")),
        finished=parse_time(status.get("finishedAt")),
        steps=steps,
        time_limit_reached=time_limit_reached,
        stopped=not time_limit_reached and (bool(shutdown) or message.startswith("Stopped with strategy")),
    )


def read_steps(workflow: Mapping[str, Any], spec: Mapping[str, Any], nodes: Mapping[str, Node]) -> list[Step]:
    """Return steps in document order, then those that the document does not name, by their start."""
    root = str(workflow["metadata"]["name"])
    retries = [node for node in nodes.values() if node.get("type") == "Retry"]
    attempts = {child for node in retries for child in node.get("children") or []}
    planned = _planned(spec)
    steps: dict[str, Step] = {}
    for node in sorted(nodes.values(), key=lambda node: str(node.get("startedAt") or "~")):
        name = str(node.get("name", ""))
        # If the entrypoint is not a DAG, its only node has the name of the run.
        key = str(spec.get("entrypoint") or name) if name == root else name.removeprefix(f"{root}.")
        # A task with a DAG has ended when that has succeeded; a failure is that of a step in it.
        has_ended = node.get("type") == "DAG" and node.get("phase") == "Succeeded" and key in planned
        if not (has_ended or node.get("type") in _LEAVES) or _is_attempt(node, attempts):
            continue
        steps[key] = _step(key, workflow, node, nodes)
    steps |= {key: Step(key=key) for key in planned if key not in steps}
    order = {key: index for index, key in enumerate(planned)}
    return sorted(steps.values(), key=lambda step: (step.in_exit_handler, order.get(step.key, len(order))))


def _is_attempt(node: Node, attempts: set[str]) -> bool:
    """Return True if a child of a Retry node is an attempt, not the next task (Argo lists both as children)."""
    if (node.get("nodeFlag") or {}).get("retried"):
        return True
    return node.get("id") in attempts and re.search(r"\(\d+\)$", str(node.get("name"))) is not None


def _is_tolerated(node: Node, nodes: Mapping[str, Node]) -> bool:
    """Return True if a template around a node succeeded: a failure of the node did not fail the run."""
    around = set[str]()
    while (boundary := str(node.get("boundaryID"))) in nodes and boundary not in around:
        around.add(boundary)
        node = nodes[boundary]
        if node.get("phase") == "Succeeded":
            return True
    return False


def _planned(spec: Mapping[str, Any]) -> list[str]:
    """Return the keys of the tasks of the entrypoint and of the exit handler."""
    templates = {template.get("name"): template for template in spec.get("templates") or []}
    tasks = []
    for template, prefix in ((spec.get("entrypoint"), ""), (spec.get("onExit"), EXIT_PREFIX)):
        dag = (templates.get(template) or {}).get("dag") or {}
        tasks += [f"{prefix}{task['name']}" for task in dag.get("tasks") or []]
    return tasks


def _step(key: str, workflow: Mapping[str, Any], node: Node, nodes: Mapping[str, Node]) -> Step:
    pods = _pods(node, nodes)
    last = pods[-1] if pods else node
    outputs = node.get("outputs") or last.get("outputs") or {}
    is_pending = node.get("phase") == "Running" and last.get("phase") == "Pending"
    message, fix = _message(last if is_pending else node, last)
    return Step(
        key=key,
        type="Pod" if node.get("type") == "Retry" else str(node.get("type")),
        node=str(node.get("id")),
        # Argo calls a Retry node Running as soon as its pod exists.
        phase="Pending" if is_pending else str(node.get("phase") or "Pending"),
        message=message,
        fix=fix,
        progress=_progress(last),
        started=parse_time(node.get("startedAt")),
        finished=parse_time(node.get("finishedAt")),
        outputs={
            str(parameter["name"]): str(parameter["value"])
            for parameter in outputs.get("parameters") or []
            if parameter.get("value") is not None
        },
        parameters=_supplied_parameters(node),
        attempts=[_attempt(workflow, pod) for pod in pods],
        is_tolerated=_is_tolerated(node, nodes),
    )


def _message(node: Node, last: Node) -> tuple[str, str]:
    """Return message and fix of a step: those that its last attempt wrote, unless Argo has another reason."""
    message = str(node.get("message") or "")
    if not message or message.startswith(_NO_RETRY):
        message = str(last.get("message") or message)
    elif message.startswith("Backoff would exceed") and last.get("message"):
        cause, fix = termination.parse(str(last["message"]))
        return f"{cause} (backoff would exceed its maxDuration)", fix
    return termination.parse(message)


def _pods(node: Node, nodes: Mapping[str, Node]) -> list[Node]:
    """Return the nodes of a step's pods; Argo keeps attempts in order."""
    if node.get("type") == "Pod":
        return [node]
    if node.get("type") != "Retry":
        return []
    children = [nodes[child] for child in node.get("children") or [] if child in nodes]
    return [child for child in children if str(child.get("name", "")).startswith(f"{node['name']}(")]


def _attempt(workflow: Mapping[str, Any], node: Node) -> Attempt:
    return Attempt(
        node=str(node["id"]),
        pod=pod_name(workflow, node),
        phase=str(node.get("phase") or ""),
        started=parse_time(node.get("startedAt")),
        message=termination.parse(str(node.get("message") or ""))[0],
        exit_code=_exit_code(node),
        host=str(node.get("hostNodeName") or ""),
    )


def _exit_code(node: Node) -> int | None:
    code = str((node.get("outputs") or {}).get("exitCode") or "")
    if not code:
        match = re.search(r"exit code (\d+)", str(node.get("message") or ""))
        code = match[1] if match else ""
    return int(code) if code.lstrip("-").isdigit() else None


def _progress(node: Node) -> tuple[int, int] | None:
    match = re.fullmatch(r"(\d+)/(\d+)", str(node.get("progress") or ""))
    # Argo counts a pod that reports no progress as 1/1.
    return (int(match[1]), int(match[2])) if match and int(match[2]) > 1 else None


def _expected_seconds(metadata: Mapping[str, Any]) -> float:
    """Return the estimated seconds of the training; 0 without an estimate."""
    text = str((metadata.get("annotations") or {}).get(TUNE_SECONDS) or "")
    return float(text) if re.fullmatch(r"\d{1,9}", text) else 0.0


def _supplied_parameters(node: Node) -> dict[str, list[str]]:
    if node.get("type") != "Suspend":
        return {}
    inputs = {item["name"]: item for item in (node.get("inputs") or {}).get("parameters") or []}
    return {
        str(parameter["name"]): [str(value) for value in inputs.get(parameter["name"], {}).get("enum") or []]
        for parameter in (node.get("outputs") or {}).get("parameters") or []
        if "supplied" in (parameter.get("valueFrom") or {})
    }


def _instance(spec: Mapping[str, Any]) -> str:
    for template in spec.get("templates") or []:
        args = (template.get("container") or {}).get("args") or []
        if template.get("name") == "provision" and "--instance-type" in args[:-1]:
            return str(args[args.index("--instance-type") + 1])
    return NONE


def _is_time_limit_reached(spec: Mapping[str, Any], steps: list[Step]) -> bool:
    """Return True if ``activeDeadlineSeconds`` of the whole run ended it (Argo: controller/exec_control.go)."""
    return bool(spec.get("activeDeadlineSeconds")) and any("exceeded its deadline" in step.message for step in steps)
