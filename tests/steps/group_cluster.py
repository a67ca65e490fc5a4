"""Fake controllers of StatefulSet and LeaderWorkerSet, with the labels that the real ones set.

The first pod of a group has the server of ``adapter_server``, the others the real server of a follower.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from kubernetes_server import KubernetesServer
from serving_cluster import NAMESPACE, Servers

from steps.rollout.service_group import POD_INDEX, WORKER_INDEX
from steps.rollout.service_manifests import REVISION
from steps.serving.group_probes import answer_probes

Object = dict[str, Any]
ENDED = {"waiting": {"reason": "CrashLoopBackOff"}}
BROKEN: Object = {
    "phase": "Running", "podIP": "10.9.9.9", "conditions": [],
    "containerStatuses": [{"name": "server", "state": ENDED, "lastState": {"terminated": {"exitCode": 1}}}],
}  # fmt: skip


class GroupServers(Servers):
    """Runs the pods of groups too, and records where the Service sends requests while one kind replaces another."""

    def __init__(self, cluster: KubernetesServer, folder: Path, service: str) -> None:
        super().__init__(cluster, folder)
        self.name = service
        self.broken = ""
        """Text in the flags of the pods that do not start."""
        self.mute: set[str] = set()
        """Models that new servers do not answer for."""
        self.misrouted: list[str] = []
        """Pods behind the Service that are followers, or next to those of another kind."""
        self.num_unserved = 0
        """Number of changes after which the Service had no ready pod any more."""
        self._followers: dict[str, contextlib.ExitStack] = {}
        self._was_served = False

    def close(self) -> None:
        super().close()
        for stack in list(self._followers.values()):
            stack.close()

    def on_event(self, event: str, document: Object) -> None:
        super().on_event(event, document)
        kind, name = document["kind"], document["metadata"]["name"]
        if kind == "StatefulSet":
            self._reconcile_stateful_set(document, gone=event == "DELETED")
        elif kind == "LeaderWorkerSet":
            self._reconcile_leader_worker_set(document, gone=event == "DELETED")
        elif kind == "Pod" and event == "DELETED" and not self.cluster.read("pods", name, NAMESPACE):
            self._end(name)
            owner = self.cluster.read("statefulsets", document["metadata"]["labels"]["owner"], NAMESPACE)
            if owner:
                self._reconcile_stateful_set(owner, gone=False)
        self._check_service()

    def _reconcile_stateful_set(self, document: Object, *, gone: bool) -> None:
        """Create missing pods only: updateStrategy is OnDelete."""
        name, template = document["metadata"]["name"], document["spec"]["template"]
        names = [] if gone else [f"{name}-{rank}" for rank in range(document["spec"]["replicas"])]
        present = {pod["metadata"]["name"]: pod for pod in self.pods_of(name)}
        for pod_name, pod in present.items():
            if pod_name not in names:
                self._stop(pod)
        for rank, pod_name in enumerate(names):
            if pod_name not in present:
                self._start(name, template, pod_name, **{POD_INDEX: str(rank)})

    def _reconcile_leader_worker_set(self, document: Object, *, gone: bool) -> None:
        """Replace one group after another; the next one after all pods of this one are ready."""
        name, spec = document["metadata"]["name"], document["spec"]
        template, size = spec["leaderWorkerTemplate"]["workerTemplate"], spec["leaderWorkerTemplate"]["size"]
        revision = template["metadata"]["annotations"][REVISION]
        kept = []
        for index in range(0 if gone else spec["replicas"]):
            ranks = {f"{name}-{index}" + (f"-{rank}" if rank else ""): rank for rank in range(size)}
            group = [pod for pod in self.pods_of(name) if pod["metadata"]["name"] in ranks]
            kept += list(ranks)
            if len(group) < size or any(_revision(pod) != revision for pod in group):
                for pod in group:
                    self._stop(pod)
                for pod_name, rank in ranks.items():
                    # Both the leaders and the workers are pods of StatefulSets.
                    labels = {WORKER_INDEX: str(rank), POD_INDEX: str(rank or index)}
                    self._start(name, template, pod_name, **labels)
            if not all(self._is_ready(pod) for pod in self.pods_of(name) if pod["metadata"]["name"] in ranks):
                return
        for pod in self.pods_of(name):
            if pod["metadata"]["name"] not in kept:
                self._stop(pod)

    def _check_service(self) -> None:
        service = self.cluster.read("services", self.name, NAMESPACE)
        selected = self.ready(**service["spec"]["selector"]) if service else []
        names = [pod["metadata"]["name"] for pod in selected]
        kinds = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in selected}
        self.misrouted += [name for name in names if name in self._followers or len(kinds) > 1]
        self.num_unserved += self._was_served and not names
        self._was_served = bool(names)

    def _trouble(self, pod: Object) -> Object | None:
        args = pod["spec"]["containers"][0]["args"]
        is_broken = bool(self.broken) and any(self.broken in argument for argument in args)
        return BROKEN if is_broken else super()._trouble(pod)

    def _serve(self, pod: Object) -> None:
        name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
        if labels.get(WORKER_INDEX, labels.get(POD_INDEX, "0")) == "0":
            super()._serve(pod)
            self.pods[name].server.mute |= self.mute
            return
        self._followers[name] = contextlib.ExitStack()
        self._followers[name].enter_context(answer_probes(pod["status"]["podIP"], 5000, lambda: True))

    def _stop(self, pod: Object) -> None:
        super()._stop(pod)
        self._end(pod["metadata"]["name"])

    def _end(self, name: str) -> None:
        if name in self.pods:
            self.pods.pop(name).close()
        if name in self._followers:
            self._followers.pop(name).close()


def _revision(pod: Object) -> str:
    return str(pod["metadata"]["annotations"][REVISION])
