"""Karpenter on the fake Kubernetes API: it advances NodeClaims by one state with each poll.

As in Karpenter, a claim has a finalizer; one that cannot be launched for missing capacity is deleted, with an event;
the conditions are Launched, Registered, Initialized, Ready, in this order; a node has the claim's labels and taints.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes_server import KubernetesServer, condition
from kubernetes_server_resources import Call

from steps.kubernetes import client as kubernetes_client
from steps.provision import karpenter
from steps.provision.karpenter import Karpenter
from steps.provision.settings import ClusterRef, ReleaseSettings, Settings
from steps.runtime.deadline import Deadline

RUN = "11111111-2222-3333-4444-555555555555"
NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
A100, H100 = "Standard_NC24ads_A100_v4", "Standard_NC40ads_H100_v5"
FINALIZER = "karpenter.sh/termination"
STAGES = ("Launched", "Registered", "Initialized", "Ready")
UNAVAILABLE = "all requested instance types were unavailable during launch"


@dataclass
class Controller:
    """Karpenter, or gpu-provisioner, of one cluster."""

    cluster: KubernetesServer
    unavailable: set[tuple[str, str]] = field(default_factory=set)
    """Unavailable instance types with their capacity type (``spot`` or ``on-demand``)."""
    failing: str = ""
    """Message of each failed launch; launches are retried."""
    stage: str = "Ready"
    """Last condition that claims reach."""
    gpus: int = 1
    """Allocatable GPUs of each node."""
    launched: list[str] = field(default_factory=list)
    """Instance type and capacity type of each launched machine."""
    machines: set[str] = field(default_factory=set)
    """Names of the existing machines."""

    def __post_init__(self) -> None:
        self.cluster.controllers.append(self._react)
        self.cluster.every_call.append(self._on_call)

    def _react(self, event: str, document: dict[str, Any]) -> None:
        if document["kind"] != "NodeClaim":
            return
        metadata = document["metadata"]
        if event == "ADDED":
            self.cluster.put({**document, "metadata": {**metadata, "finalizers": [FINALIZER]}})
        elif event == "MODIFIED" and metadata.get("deletionTimestamp"):
            self.machines.discard(metadata["name"])
            self._remove("nodes", f"node-{metadata['name']}")
            self.cluster.put({**document, "metadata": {**metadata, "finalizers": []}})
            self._remove("nodeclaims", metadata["name"])

    def _on_call(self, call: Call) -> None:
        if str(call) == "list nodeclaims":
            for claim in self.cluster.all("nodeclaims"):
                if not claim["metadata"].get("deletionTimestamp"):
                    self._advance(claim)

    def _advance(self, claim: dict[str, Any]) -> None:
        done = [c["type"] for c in claim.get("status", {}).get("conditions", []) if c["status"] == "True"]
        size, kind = _size(claim)
        name = claim["metadata"]["name"]
        if len(done) == len(STAGES) or self.stage in done:
            return
        if not done and (size, kind) in self.unavailable:
            self._event(claim, "InsufficientCapacityError", f"NodeClaim {name} event: {UNAVAILABLE}")
            self._remove("nodeclaims", name)
            return
        if not done and self.failing:
            conditions = [condition("Launched", "Unknown", "LaunchFailed", self.failing)]
            self.cluster.put({**claim, "status": {"conditions": conditions}})
            return
        following = STAGES[len(done)]
        if following == "Launched":
            self.launched.append(f"{size} {kind}")
            self.machines.add(name)
        if following == "Registered":
            self._node(claim)
        conditions = [condition(stage) for stage in (*done, following)]
        self.cluster.put({**claim, "status": {"conditions": conditions, "nodeName": f"node-{name}"}})

    def _node(self, claim: dict[str, Any]) -> None:
        gpus = {"nvidia.com/gpu": str(self.gpus)} if self.gpus else {}
        metadata = {"name": f"node-{claim['metadata']['name']}", "labels": claim["metadata"]["labels"]}
        status = {"allocatable": {"cpu": "24", **gpus}, "conditions": [condition("Ready")]}
        spec = {"taints": claim["spec"]["taints"]}
        self.cluster.put({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status})

    def _event(self, claim: dict[str, Any], reason: str, message: str) -> None:
        metadata = claim["metadata"]
        involved = {"kind": "NodeClaim", "name": metadata["name"], "uid": metadata["uid"]}
        name = {"name": f"{metadata['name']}.{metadata['uid'][:8]}", "namespace": "default"}
        event = {"type": "Warning", "reason": reason, "message": message, "involvedObject": involved}
        self.cluster.put({"apiVersion": "v1", "kind": "Event", "metadata": name, **event})

    def _remove(self, plural: str, name: str) -> None:
        record = self.cluster.records.get(self.cluster.key(self.cluster.resource(plural), "", name))
        if record:
            self.cluster.delete(record, {})


def _size(claim: Mapping[str, Any]) -> tuple[str, str]:
    values = {entry["key"]: entry["values"][0] for entry in claim["spec"]["requirements"]}
    return values["node.kubernetes.io/instance-type"], values.get("karpenter.sh/capacity-type", "on-demand")


@dataclass
class Pod:
    """Steps of a run in the cluster, without real waits."""

    cluster: KubernetesServer
    work: Path
    waits: list[float] = field(default_factory=list)

    def settings(self, **changes: Any) -> Settings:
        values = {"run": RUN, "workflow": "tuned-x7k2m", "workspace": "tuned", "namespace": "argotune"}
        values |= {"labels": {"apps": "tuned"}, "work": self.work, "provider": "karpenter", "instance_type": A100}
        return Settings(**{**values, **changes})

    def connect(self) -> Karpenter:
        client = kubernetes_client.connect(self.waits.append)
        return Karpenter(client, Deadline(self.waits.append, lambda: sum(self.waits)), lambda: NOW)

    def provision(self, **changes: Any) -> Any:
        return karpenter.provision(self.settings(**changes), self.connect())

    def release(self, run: str = RUN) -> str:
        return karpenter.release(ReleaseSettings(work=self.work, provider="karpenter", run=run), self.connect())

    def list_orphans(self) -> Any:
        return karpenter.list_orphans(ClusterRef(provider="karpenter"), self.connect())
