"""The reason why a pod of a service is not ready, in one sentence, from its status, events and log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from steps.kubernetes.client import EVENTS, KubernetesClient
from steps.runtime.errors import InsufficientCapacity, StepError
from steps.runtime.pod import namespace_flag
from steps.serving.server import last_error_in

Document = dict[str, Any]
IMAGE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
NOT_CREATED = (
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
    "ImageVolumeMountFailed",
)
CONFIG = ("CreateContainerConfigError", *NOT_CREATED)
GPU_MEMORY = re.compile(r"CUDA out of memory|OutOfMemoryError|No available memory for the cache|larger than the avail")
NOT_MOUNTED = re.compile(r"unmounted volumes=\[([^]]*)]|for volume \"([^\"]*)\"")
LOG_LINES = 200


class ImageVolumeFailed(StepError):
    """A pod does not start, possibly because of the images that it mounts; it can start without them."""


@dataclass(frozen=True)
class Cause:
    """The reason why a pod is not ready."""

    message: str
    fix: str = ""
    final: bool = False
    """Waiting longer does not help."""
    capacity: bool = False
    """Memory or nodes are missing."""
    image_volume: bool = False
    """An image that the pod mounts is a possible reason."""

    def error(self) -> StepError:
        """Return the error of a step that fails for this reason."""
        if self.image_volume:
            return ImageVolumeFailed(self.message, self.fix)
        return (InsufficientCapacity if self.capacity else StepError)(self.message, self.fix)


def diagnose_pods(cluster: KubernetesClient, pods: list[Document]) -> Cause | None:
    """Return the cause of the first pod that has one, final causes first."""
    causes = [cause for pod in pods if (cause := diagnose_pod(cluster, pod))]
    return min(causes, key=lambda cause: not cause.final, default=None)


def diagnose_pod(cluster: KubernetesClient, pod: Document) -> Cause | None:
    """Return why a pod is not ready; None if it is ready, or can still become ready."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if status.get("reason") == "Evicted":
        return Cause(
            f"pod {name} was evicted: {status.get('message', '')}",
            "increase the ephemeral storage or memory of the pod",
            final=True,
        )
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        message = f"no node can run pod {name}: {scheduled.get('message', '')}"
        return Cause(message, "add nodes with free GPUs, or request another instance type", capacity=True)
    states = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    mounted = _mounted_images(pod.get("spec") or {})
    for container in states:
        if cause := _diagnose_container(cluster, name, container, mounted):
            return cause
    return _diagnose_events(cluster, name, mounted)


def diagnose_deployment(deployment: Document) -> Cause | None:
    """Return why a Deployment cannot create pods: an admission policy or a quota rejects them."""
    conditions = (deployment.get("status") or {}).get("conditions") or []
    failures = [one for one in conditions if one["type"] == "ReplicaFailure" and one["status"] == "True"]
    if not failures:
        return None
    message = str(failures[0].get("message", ""))
    # Before Kubernetes 1.33, Pod Security "restricted" rejects image volumes.
    volume = any(name in message for name in _mounted_images(deployment["spec"]["template"]["spec"]))
    message = f"cannot create pods of {deployment['metadata']['name']}: {message}"
    return Cause(message, "check the admission policies and quotas", final=volume, image_volume=volume)


def _mounted_images(spec: Document) -> dict[str, str]:
    """Return references by volume of the images that a pod mounts."""
    volumes = [volume for volume in spec.get("volumes") or [] if volume.get("image")]
    return {volume["name"]: volume["image"].get("reference", "") for volume in volumes}


def _diagnose_container(
    cluster: KubernetesClient, pod: str, status: Document, mounted: dict[str, str]
) -> Cause | None:
    name = status["name"]
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in IMAGE:
        # The kubelet reports mounted images with the same reason, and names them only in the message.
        volume = next((image for image in mounted.values() if image.rpartition("@")[2] in message), "")
        message = f"cannot pull image {volume or status.get('image', '')} of pod {pod}: {message or reason}"
        final = reason != "ErrImagePull"  # the kubelet retries
        fix = "check that the image exists and that the cluster has access to it"
        return Cause(message, fix, final=final, image_volume=bool(volume))
    if reason in CONFIG:
        message, volumes = f"cannot start pod {pod}: {message or reason}", bool(mounted) and reason in NOT_CREATED
        return Cause(message, "create the missing object", final=True, image_volume=volumes)
    ended = (status.get("state") or {}).get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if mounted and ended.get("reason") in NOT_CREATED:
        message = f"cannot start pod {pod}: {ended.get('message') or ended['reason']}"
        return Cause(
            message,
            f"see kubectl describe pod {pod}{namespace_flag(cluster.namespace)}",
            final=True,
            image_volume=True,
        )
    if not ended or (ended.get("exitCode") == 0 and ended.get("reason") == "Completed"):
        return None
    final = reason == "CrashLoopBackOff" or int(status.get("restartCount") or 0) > 1
    if ended.get("reason") == "OOMKilled":
        message = f"pod {pod} was killed: container {name} exceeded its memory limit (OOMKilled)"
        return Cause(message, "use nodes with more memory, or a smaller model", final=final, capacity=True)
    log = cluster.log(pod, name, lines=LOG_LINES, previous="terminated" not in (status.get("state") or {}))
    if line := next((line for line in log.splitlines() if GPU_MEMORY.search(line)), ""):
        fix = "use larger GPUs, a shorter max-model-len, or a smaller model"
        message = f"pod {pod} ran out of GPU memory: {' '.join(line.split())[:300]}"
        return Cause(message, fix, final=final, capacity=True)
    message = f"pod {pod} exited with code {ended.get('exitCode')}: {last_error_in(log)}"
    return Cause(message, f"see kubectl logs {pod} --previous{namespace_flag(cluster.namespace)}", final=final)


def _diagnose_events(cluster: KubernetesClient, pod: str, mounted: dict[str, str]) -> Cause | None:
    """Return the cause by the events of a pod: volumes that cannot be mounted appear only there."""
    events = cluster.list(EVENTS, fields=f"involvedObject.name={pod},type=Warning")
    relevant = [event for event in events if event.get("reason") in ("FailedMount", "FailedAttachVolume", "Unhealthy")]
    if not relevant:
        return None
    latest = max(relevant, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    fix = f"see kubectl describe pod {pod}{namespace_flag(cluster.namespace)}"
    if "Multi-Attach" in str(latest.get("message")):
        fix = "use a ReadWriteMany claim (storage.modelsClaim of the site profile), so that several nodes can mount it"
    message = str(latest.get("message", ""))
    # A kubelet without image volumes waits for them forever.
    names = {name for groups in NOT_MOUNTED.findall(message) for name in " ".join(groups).replace(",", " ").split()}
    volume = latest.get("reason") == "FailedMount" and bool(names & mounted.keys())
    return Cause(f"pod {pod} is not ready: {message}", fix, final=volume, image_volume=volume)
