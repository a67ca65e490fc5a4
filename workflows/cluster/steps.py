"""The steps of a run: tasks of its DAG and of its exit handler, with attempts, pods, outputs and times."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from workflows.cluster.nodes import Node, moment, pod_name

EXIT = "onExit."
"""Begins the keys of the exit handler's steps, as on one machine."""
_LEAVES = ("Pod", "Retry", "Suspend", "Skipped", "Container", "HTTP", "Plugin")


@dataclass(frozen=True)
class Attempt:
    """One pod of a step."""

    node: str
    """Id of Argo's node."""
    pod: str
    phase: str
    started: datetime | None
    message: str = ""
    exit_code: int | None = None
    host: str = ""
    """Name of the machine."""

    @property
    def begun(self) -> bool:
        """Whether there is, or was, a pod that ran."""
        return self.phase not in ("", "Pending")

    @property
    def ended(self) -> bool:
        """Whether it will write no more."""
        return self.begun and self.phase != "Running"


@dataclass(frozen=True)
class Step:
    """One task."""

    key: str
    """``tune``; ``onExit.report``; ``outer.inner`` inside a nested DAG."""
    type: str = "Pod"
    """``Suspend``, ``Skipped``, or of a pod."""
    node: str = ""
    """Id of Argo's node; empty where there is none yet."""
    phase: str = ""
    """Empty where it has not been reached."""
    message: str = ""
    progress: tuple[int, int] | None = None
    started: datetime | None = None
    finished: datetime | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    asks: dict[str, list[str]] = field(default_factory=dict)
    """What a suspended step wants to know, each with the answers there are (none: any text)."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def in_exit_handler(self) -> bool:
        """Whether it runs after the DAG, whatever came of that."""
        return f"{self.key}.".startswith(EXIT)

    @property
    def ended(self) -> bool:
        """Nothing more will happen to it."""
        return self.phase not in ("", "Pending", "Running")

    @property
    def failed(self) -> bool:
        """It failed, or could not be run."""
        return self.phase in ("Failed", "Error")

    @property
    def consequence(self) -> bool:
        """It failed because the run was being ended."""
        return "shutdown with strategy" in self.message or "exceeded its deadline" in self.message

    @property
    def exit_code(self) -> int | None:
        """Of the last attempt."""
        return self.attempts[-1].exit_code if self.attempts else None


def read_steps(workflow: Mapping[str, Any], spec: Mapping[str, Any], nodes: Mapping[str, Node]) -> list[Step]:
    """Steps in the order of the document, then those it does not name, by their start."""
    root = str(workflow["metadata"]["name"])
    retries = [node for node in nodes.values() if node.get("type") == "Retry"]
    attempts = {child for node in retries for child in node.get("children") or []}
    found = {}
    for node in sorted(nodes.values(), key=lambda node: str(node.get("startedAt") or "~")):
        name = str(node.get("name", ""))
        if node.get("type") not in _LEAVES or _is_attempt(node, attempts):
            continue
        # A run whose entrypoint is no DAG is one step, which has the run's own name.
        key = str(spec.get("entrypoint") or name) if name == root else name.removeprefix(f"{root}.")
        found[key] = _step(key, workflow, node, nodes)
    planned = _planned(spec)
    found |= {key: Step(key=key) for key in planned if key not in found}
    order = {key: place for place, key in enumerate(planned)}
    return sorted(found.values(), key=lambda step: (step.in_exit_handler, order.get(step.key, len(order))))


def _is_attempt(node: Node, attempts: set[str]) -> bool:
    """A child of a Retry node is an attempt, unless it is the task that follows (Argo lists both as children)."""
    if (node.get("nodeFlag") or {}).get("retried"):
        return True
    return node.get("id") in attempts and re.search(r"\(\d+\)$", str(node.get("name"))) is not None


def _planned(spec: Mapping[str, Any]) -> list[str]:
    templates = {template.get("name"): template for template in spec.get("templates") or []}
    tasks = []
    for template, prefix in ((spec.get("entrypoint"), ""), (spec.get("onExit"), EXIT)):
        dag = (templates.get(template) or {}).get("dag") or {}
        tasks += [f"{prefix}{task['name']}" for task in dag.get("tasks") or []]
    return tasks


def _step(key: str, workflow: Mapping[str, Any], node: Node, nodes: Mapping[str, Node]) -> Step:
    pods = _pods(node, nodes)
    last = pods[-1] if pods else node
    outputs = node.get("outputs") or last.get("outputs") or {}
    message = str(node.get("message") or "")
    if not message or message.startswith("No more retries left"):
        message = str(last.get("message") or message)
    return Step(
        key=key,
        type="Pod" if node.get("type") == "Retry" else str(node.get("type")),
        node=str(node.get("id")),
        phase=str(node.get("phase") or "Pending"),
        message=message,
        progress=_progress(last),
        started=moment(node.get("startedAt")),
        finished=moment(node.get("finishedAt")),
        outputs={
            str(parameter["name"]): str(parameter["value"])
            for parameter in outputs.get("parameters") or []
            if parameter.get("value") is not None
        },
        asks=_asks(node),
        attempts=[_attempt(workflow, one) for one in pods],
    )


def _pods(node: Node, nodes: Mapping[str, Node]) -> list[Node]:
    """Nodes of a step's pods; Argo keeps attempts in their order."""
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
        started=moment(node.get("startedAt")),
        message=str(node.get("message") or ""),
        exit_code=_exit_code(node),
        host=str(node.get("hostNodeName") or ""),
    )


def _exit_code(node: Node) -> int | None:
    given = str((node.get("outputs") or {}).get("exitCode") or "")
    if not given:
        told = re.search(r"exit code (\d+)", str(node.get("message") or ""))
        given = told[1] if told else ""
    return int(given) if given.lstrip("-").isdigit() else None


def _progress(node: Node) -> tuple[int, int] | None:
    told = re.fullmatch(r"(\d+)/(\d+)", str(node.get("progress") or ""))
    # Argo counts a pod without progress of its own as one of one.
    return (int(told[1]), int(told[2])) if told and int(told[2]) > 1 else None


def _asks(node: Node) -> dict[str, list[str]]:
    if node.get("type") != "Suspend":
        return {}
    inputs = {one["name"]: one for one in (node.get("inputs") or {}).get("parameters") or []}
    return {
        str(parameter["name"]): [str(answer) for answer in inputs.get(parameter["name"], {}).get("enum") or []]
        for parameter in (node.get("outputs") or {}).get("parameters") or []
        if "supplied" in (parameter.get("valueFrom") or {})
    }
