"""A Workflow as Argo's controller keeps it: nodes, ids, retries and messages, as in its operator_test.go."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

NAME = "oncall-x7k2m"
START = datetime(2026, 8, 21, 10, 0, tzinfo=UTC)
MAIN = ["provision", "download", "tune", "evaluate", "package", "rollout"]
EXIT = ["release", "report"]


def fnv(text: str) -> int:
    hashed = 2166136261
    for byte in text.encode():
        hashed = ((hashed ^ byte) * 16777619) % 2**32
    return hashed


def compiled(steps: list[str] | None = None) -> dict[str, Any]:
    """A small Workflow with the steps of a compiled one."""
    steps = steps or MAIN
    leaves = [
        {"name": step, "container": {"image": "x", "command": ["python"], "args": []}} for step in [*steps, *EXIT]
    ]
    for leaf in leaves:
        if leaf["name"] == "provision":
            leaf["container"]["args"] = ["--work", "/w", "--instance-type", "Standard_NC24ads_A100_v4", "--count", "1"]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": NAME, "namespace": "argotune", "labels": {"argotune.dev/workspace": "oncall"}},
        "spec": {
            "entrypoint": "main",
            "onExit": "exit",
            "templates": [
                *leaves,
                {"name": "main", "dag": {"tasks": [{"name": step, "template": step} for step in steps]}},
                {"name": "exit", "dag": {"tasks": [{"name": step, "template": step} for step in EXIT]}},
            ],
        },
    }


class ArgoRun:
    """A run whose steps a test moves on."""

    def __init__(self, steps: list[str] | None = None, name: str = NAME, document: dict[str, Any] | None = None):
        self.document = copy.deepcopy(document or compiled(steps))
        self.document["metadata"]["name"] = self.name = name
        self.document["metadata"]["creationTimestamp"] = self._time(0)
        self.minutes = 0
        self.status: dict[str, Any] = {}

    def at(self, minutes: int) -> ArgoRun:
        self.minutes = minutes
        return self

    def phase(self, phase: str, message: str = "") -> ArgoRun:
        if not self.status:
            self.status = {"startedAt": self._time(self.minutes), "nodes": {}, "progress": "0/8"}
            self._put({"name": self.name, "id": self.name, "type": "DAG", "phase": "Running", "templateName": "main"})
        self.status |= {"phase": phase, "message": message}
        if phase in ("Succeeded", "Failed", "Error"):
            self.status["finishedAt"] = self._time(self.minutes)
        return self

    def step(
        self,
        task: str,
        phase: str,
        *,
        attempt: int = 0,
        message: str = "",
        exit_code: int | None = None,
        outputs: dict[str, str] | None = None,
        progress: str = "0/1",
    ) -> ArgoRun:
        """One attempt of a step: a Retry node, and a Pod node below it."""
        name = self.node_name(task)
        retry = self.status.get("nodes", {}).get(self._id(name)) or {
            "name": name,
            "type": "Retry",
            "children": [],
            "startedAt": self._time(self.minutes),
        }
        pod_name = f"{name}({attempt})"
        if self._id(pod_name) not in retry["children"]:
            retry["children"].append(self._id(pod_name))
        reported: dict[str, Any] = {}
        if outputs:
            reported["parameters"] = [{"name": key, "value": value} for key, value in outputs.items()]
        if exit_code is not None:
            reported["exitCode"] = str(exit_code)
        ended = phase in ("Succeeded", "Failed", "Error")
        times = {"startedAt": self._time(self.minutes), "finishedAt": self._time(self.minutes) if ended else None}
        before = self.status.get("nodes", {}).get(self._id(pod_name))
        if before:
            times["startedAt"] = before["startedAt"]
        pod = {
            "name": pod_name,
            "type": "Pod",
            "phase": phase,
            "message": message,
            "progress": progress,
            "templateName": task,
            "hostNodeName": "aks-gpu-0",
            "nodeFlag": {"retried": True},
            **times,
            **({"outputs": reported} if reported else {}),
        }
        self._put(pod)
        self._put(
            {
                **retry,
                "phase": "Running" if phase == "Pending" else phase,
                "message": f"No more retries left: {message}" if message and phase == "Failed" else message,
                "templateName": task,
                "finishedAt": times["finishedAt"],
                **({"outputs": reported} if reported else {}),
            }
        )
        return self

    def left_out(self, task: str, phase: str = "Skipped") -> ArgoRun:
        """A task whose ``when`` was false (Skipped), or whose ``depends`` can't be met (Omitted)."""
        name = self.node_name(task)
        self._put({"name": name, "type": "Skipped", "phase": phase, "startedAt": self._time(self.minutes)})
        return self

    def suspended(self, task: str = "approval", answer: str = "") -> ArgoRun:
        supplied = {"name": "approve", "valueFrom": {"supplied": {}}}
        node = {
            "name": self.node_name(task),
            "type": "Suspend",
            "phase": "Succeeded" if answer else "Running",
            "templateName": task,
            "startedAt": self._time(self.minutes),
            "inputs": {"parameters": [{"name": "approve", "value": "NO", "enum": ["YES", "NO"]}]},
            "outputs": {"parameters": [{"name": "approve", "value": answer} if answer else supplied]},
        }
        self._put(node)
        return self

    def all_succeeded(self, **outputs: dict[str, str]) -> ArgoRun:
        for step in [*self.planned(), *(f"onExit.{step}" for step in EXIT)]:
            self.step(step, "Succeeded", exit_code=0, outputs=outputs.get(step))
        return self

    def planned(self) -> list[str]:
        main = next(one for one in self.document["spec"]["templates"] if one["name"] == "main")
        return [task["name"] for task in main["dag"]["tasks"]]

    def now(self) -> dict[str, Any]:
        """The document as it stands."""
        return copy.deepcopy(self.document | ({"status": self.status} if self.status else {}))

    def pod(self, task: str, attempt: int = 0) -> str:
        return f"{self.name}-{task.rpartition('.')[2]}-{fnv(f'{self.node_name(task)}({attempt})')}"

    def node_name(self, task: str) -> str:
        return f"{self.name}.{task}"

    def _put(self, node: dict[str, Any]) -> None:
        if not self.status:
            self.phase("Running")
        node_id = node.get("id") or self._id(node["name"])
        display = node["name"].rpartition(".")[2]
        self.status["nodes"][node_id] = {"id": node_id, "displayName": display, "boundaryID": self.name, **node}

    def _id(self, name: str) -> str:
        return f"{self.name}-{fnv(name)}"

    def _time(self, minutes: int) -> str:
        return (START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
