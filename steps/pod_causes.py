"""Why a pod of a service does not serve, in one sentence: from its status, its events and its log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steps.errors import NoCapacity, StepError
from steps.kubernetes_client import EVENTS, KubernetesClient
from steps.server import cause_of

Document = dict[str, Any]
IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
GPU_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|No available memory for the cache|larger than the avail")
LOG_LINES = 200


@dataclass(frozen=True)
class Cause:
    """Why a pod does not serve."""

    what: str
    fix: str = ""
    final: bool = False
    """Whether waiting is no use."""
    capacity: bool = False
    """Whether memory or nodes are missing."""

    def error(self) -> StepError:
        """The error of a step that fails for it."""
        return (NoCapacity if self.capacity else StepError)(self.what, self.fix)


def of_pods(cluster: KubernetesClient, pods: list[Document]) -> Cause | None:
    """The cause of the first pod that has one; those that are final come first."""
    causes = [cause for pod in pods if (cause := of_pod(cluster, pod))]
    return min(causes, key=lambda cause: not cause.final, default=None)


def of_pod(cluster: KubernetesClient, pod: Document) -> Cause | None:
    """Why one pod does not serve; None where it does, or nothing says that it won't."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("reason") == "Evicted":
        return Cause(f"pod {name} was evicted: {status.get('message', '')}", "give the pod more room", final=True)
    conditions = {one["type"]: one for one in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        what = f"no node takes pod {name}: {scheduled.get('message', '')}"
        return Cause(what, "add nodes with free GPUs, or ask for other ones", capacity=True)
    states = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for container in states:
        if cause := _of_container(cluster, name, container):
            return cause
    return _of_events(cluster, name)


def _of_container(cluster: KubernetesClient, pod: str, status: Document) -> Cause | None:
    name = status["name"]
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE:
        what = f"the image {status.get('image', '')} of pod {pod} can't be pulled: {message or reason}"
        final = reason != "ErrImagePull"  # the kubelet tries again
        return Cause(what, "see whether it exists and whether the cluster may pull it", final=final)
    if reason in CONFIG:
        return Cause(f"pod {pod} can't be started: {message or reason}", "make what it names", final=True)
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if not ended or (ended.get("exitCode") == 0 and ended.get("reason") == "Completed"):
        return None
    final = reason == "CrashLoopBackOff" or int(status.get("restartCount") or 0) > 1
    if ended.get("reason") == "OOMKilled":
        what = f"pod {pod} was killed: its container {name} took more memory than it may (OOMKilled)"
        return Cause(what, "nodes with more memory, or a smaller model", final=final, capacity=True)
    log = cluster.log(pod, name, lines=LOG_LINES, previous="terminated" not in (status.get("state") or {}))
    why = cause_of(log)
    if found := next((line for line in log.splitlines() if GPU_MEMORY.search(line)), ""):
        why = " ".join(found.split())[:300]
        fix = "larger GPUs, a shorter max-model-len, or a smaller model"
        return Cause(f"pod {pod} ran out of GPU memory: {why}", fix, final=final, capacity=True)
    what = f"pod {pod} ends with exit code {ended.get('exitCode')}: {why}"
    return Cause(what, f"see kubectl logs {pod} --previous", final=final)


def _of_events(cluster: KubernetesClient, pod: str) -> Cause | None:
    """Volumes that can't be mounted are told by events alone."""
    events = cluster.list(EVENTS, fields=f"involvedObject.name={pod},type=Warning")
    told = [event for event in events if event.get("reason") in ("FailedMount", "FailedAttachVolume", "Unhealthy")]
    if not told:
        return None
    latest = max(told, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    fix = f"see kubectl describe pod {pod}"
    if "Multi-Attach" in str(latest.get("message")):
        fix = "a claim that several nodes mount at once: ReadWriteMany (storage.modelsClaim of the site profile)"
    return Cause(f"pod {pod} is not ready: {latest.get('message', '')}", fix)
