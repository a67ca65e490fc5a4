"""Why a pod of a service does not serve, in one sentence: from its status, its events and its log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steps.kubernetes.client import EVENTS, KubernetesClient
from steps.runtime.errors import InsufficientCapacity, StepError
from steps.serving.server import cause_of

Document = dict[str, Any]
IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NOT_MADE = ("CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun", "ImageVolumeMountFailed")
CONFIG = ("CreateContainerConfigError", *NOT_MADE)
GPU_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|No available memory for the cache|larger than the avail")
NOT_MOUNTED = re.compile(r"unmounted volumes=\[([^]]*)]|for volume \"([^\"]*)\"")
LOG_LINES = 200


class NoImageVolume(StepError):
    """A pod does not start, maybe for the images that it shall mount; without them another one may."""


@dataclass(frozen=True)
class Cause:
    """Why a pod does not serve."""

    message: str
    fix: str = ""
    final: bool = False
    """Whether waiting is no use."""
    capacity: bool = False
    """Whether memory or nodes are missing."""
    image_volume: bool = False
    """Whether it may be for an image that the pod shall mount."""

    def error(self) -> StepError:
        """The error of a step that fails for it."""
        if self.image_volume:
            return NoImageVolume(self.message, self.fix)
        return (InsufficientCapacity if self.capacity else StepError)(self.message, self.fix)


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
    mounted = _mounted(pod.get("spec") or {})
    for container in states:
        if cause := _of_container(cluster, name, container, mounted):
            return cause
    return _of_events(cluster, name, mounted)


def of_deployment(deployment: Document) -> Cause | None:
    """Why pods of a Deployment may not even be made: an admission policy or a quota says no."""
    conditions = (deployment.get("status") or {}).get("conditions") or []
    refused = next((one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True"), None)
    if refused is None:
        return None
    message = str(refused.get("message", ""))
    # Before Kubernetes 1.33 Pod Security "restricted" knows no image volumes.
    volume = any(name in message for name in _mounted(deployment["spec"]["template"]["spec"]))
    what = f"no pod of {deployment['metadata']['name']} may be made: {message}"
    return Cause(what, "see what refuses it", final=volume, image_volume=volume)


def _mounted(spec: Document) -> dict[str, str]:
    """References by volume of the images that a pod mounts."""
    return {one["name"]: one["image"].get("reference", "") for one in spec.get("volumes") or [] if one.get("image")}


def _of_container(cluster: KubernetesClient, pod: str, status: Document, mounted: dict[str, str]) -> Cause | None:
    name = status["name"]
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE:
        # The kubelet tells so of images to be mounted too, and names them in the message alone.
        volume = next((one for one in mounted.values() if one.rpartition("@")[2] in message), "")
        what = f"the image {volume or status.get('image', '')} of pod {pod} can't be pulled: {message or reason}"
        final = reason != "ErrImagePull"  # the kubelet tries again
        fix = "see whether it exists and whether the cluster may pull it"
        return Cause(what, fix, final=final, image_volume=bool(volume))
    if reason in CONFIG:
        what, volumes = f"pod {pod} can't be started: {message or reason}", bool(mounted) and reason in NOT_MADE
        return Cause(what, "make what it names", final=True, image_volume=volumes)
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if mounted and ended.get("reason") in NOT_MADE:
        what = f"pod {pod} can't be started: {ended.get('message') or ended['reason']}"
        return Cause(what, f"see kubectl describe pod {pod}", final=True, image_volume=True)
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


def _of_events(cluster: KubernetesClient, pod: str, mounted: dict[str, str]) -> Cause | None:
    """Volumes that can't be mounted are told by events alone."""
    events = cluster.list(EVENTS, fields=f"involvedObject.name={pod},type=Warning")
    told = [event for event in events if event.get("reason") in ("FailedMount", "FailedAttachVolume", "Unhealthy")]
    if not told:
        return None
    latest = max(told, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    fix = f"see kubectl describe pod {pod}"
    if "Multi-Attach" in str(latest.get("message")):
        fix = "a claim that several nodes mount at once: ReadWriteMany (storage.modelsClaim of the site profile)"
    message = str(latest.get("message", ""))
    # A kubelet without image volumes waits for them for ever.
    names = {name for found in NOT_MOUNTED.findall(message) for name in " ".join(found).replace(",", " ").split()}
    volume = latest.get("reason") == "FailedMount" and bool(names & mounted.keys())
    return Cause(f"pod {pod} is not ready: {message}", fix, final=volume, image_volume=volume)
