"""Deploy a release of a service, and roll back if it does not answer.

Hot load: running servers load other adapters (``adapter_reloader`` watches their ConfigMap). Rolling update: a new
server is ready before an old one is removed. A release is recorded only after it has answered, so a run that is killed
at any moment leaves the previous release on record, and the next run succeeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from steps.kubernetes import port_forward
from steps.kubernetes.client import CONFIG_MAPS, PODS, KubernetesClient
from steps.rollout import pod_diagnosis, service_manifests, service_workload
from steps.rollout.service_manifests import REVISION, TRACK_LABEL
from steps.rollout.service_release import SERVICE_LABEL, STABLE, Release
from steps.runtime.errors import StepError, TimeLimit
from steps.serving import desired_adapters, serving_client
from steps.serving.drain import PORT

Document = dict[str, Any]
POLL_SECONDS = 2.0
HOT_LOAD_SECONDS = 300.0
"""Time for a hot load: a kubelet takes up to two minutes to update a mounted ConfigMap."""


@dataclass(frozen=True)
class Rollout:
    """The deployment of one track of a service."""

    cluster: KubernetesClient
    name: str
    track: str = STABLE
    scaled: bool = False
    end: float = 0.0
    """Deadline, by ``time.monotonic``."""
    in_cluster: bool = True
    """True if this process can connect to pods; from outside, the API server forwards their ports."""
    sleep: Callable[[float], None] = time.sleep

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the deadline."""
        return max(1.0, self.end - time.monotonic())

    @property
    def deployment(self) -> str:
        """Name of the Deployment."""
        return service_manifests.deployment_name(self.name, self.track)


def deploy(rollout: Rollout, release: Release, current: Release | None) -> Release:
    """Replace the ``current`` release with another one; on failure, roll back.

    Returns:
        The release with the revision of its servers.

    Raises:
        InsufficientCapacity: No node has the resources.
        ImageVolumeFailed: The pods cannot start with the images that they mount.
        StepError: The servers do not become ready.
        TimeLimit: They are not ready before the deadline.
    """
    is_hot = bool(release.adapters) and not release.group  # followers of a group load adapters when they start
    if current and is_hot and current.pod_template_hash == release.pod_template_hash:
        hot = dataclasses.replace(release, revision=current.revision)
        if _is_running(rollout, current.revision) and _can_reach_pods(rollout, current.revision):
            try:
                _hot_load(rollout, hot, current)
                if hot.replicas != current.replicas and not rollout.scaled:
                    print(f"scaling {rollout.deployment} to {hot.replicas} servers", flush=True)
                    _wait_until_complete(rollout, hot)
                return hot
            except StepError as error:
                print(f"hot load failed ({error.message}); starting a rolling update", flush=True)
    # Tracks never share a revision, because the ConfigMap of adapters is named after it.
    started = release.with_revision(other_than="" if rollout.track == STABLE else rollout.track)
    if current and started.revision == current.revision and started.adapters != current.adapters:
        # The servers of that revision have hot-loaded other adapters.
        started = release.with_revision(other_than=current.revision)
    try:
        _rolling_update(rollout, started)
        _route(rollout, started, current)
    except BaseException:
        rollback(rollout, current, started)
        raise
    return started


def rollback(rollout: Rollout, current: Release | None, failed: Release) -> None:
    """Restore the ``current`` release; delete the failed one if there was none."""
    if current is None:
        print(f"no previous release to roll back to; deleted the failed {service_workload.noun(failed)}", flush=True)
        service_workload.delete(rollout.cluster, rollout.name, rollout.track, failed.group)
    else:
        print(f"rolling back to revision {current.revision}", flush=True)
        _apply(rollout, current)
        service_workload.replace_pods(rollout.cluster, rollout.name, current)
        _route(rollout, current, failed)
        if failed.group != current.group:
            service_workload.delete(rollout.cluster, rollout.name, rollout.track, failed.group)
    if current is None or failed.revision != current.revision:
        rollout.cluster.delete(CONFIG_MAPS, service_manifests.config_map_name(rollout.name, failed.revision))


def is_serving(rollout: Rollout, release: Release) -> bool:
    """Return True if the Deployment and the adapters in the cluster are those of the release."""
    desired = service_manifests.adapters_config_map(rollout.name, release.revision, release.adapters)
    live = rollout.cluster.get(CONFIG_MAPS, desired["metadata"]["name"]) or {}
    return _revision(_live(rollout, release)) == release.revision and live.get("data") == desired["data"]


def restore(rollout: Rollout, release: Release) -> None:
    """Deploy a release as it is on record, whatever the live state is.

    Raises:
        StepError: See ``deploy``.
    """
    _rolling_update(rollout, release)


def ready_pods(rollout: Rollout, revision: str) -> list[Document]:
    """Return the ready pods of a revision."""
    return [pod for pod in pods(rollout, revision) if _is_ready(pod)]


def pods(rollout: Rollout, revision: str) -> list[Document]:
    """Return the pods of a revision that are not terminating."""
    select = f"{SERVICE_LABEL}={rollout.name},{TRACK_LABEL}={rollout.track}"
    live = [pod for pod in rollout.cluster.list(PODS, labels=select) if not pod["metadata"].get("deletionTimestamp")]
    return [pod for pod in live if _revision(pod) == revision]


def pod_address(pod: Document, port: int = PORT) -> str:
    """Return the URL of a pod within the cluster."""
    ip = pod["status"]["podIP"]
    return f"http://[{ip}]:{port}" if ":" in ip else f"http://{ip}:{port}"


def _is_running(rollout: Rollout, revision: str) -> bool:
    """Return True if the live servers are those of a revision and one of them is ready."""
    deployment = service_workload.read(rollout.cluster, rollout.name, rollout.track)
    return _revision(deployment) == revision and bool(ready_pods(rollout, revision))


def _can_reach_pods(rollout: Rollout, revision: str) -> bool:
    """Return True if the servers can be asked which adapters they have loaded."""
    if rollout.in_cluster:
        return True
    try:
        for pod in ready_pods(rollout, revision)[:1]:
            rollout.cluster.open_port(pod["metadata"]["name"], PORT).close()
    except (StepError, OSError) as error:
        message = f"the servers cannot be reached from here ({getattr(error, 'message', error)})"
        print(f"{message}; starting a rolling update", flush=True)
        return False
    return True


def _hot_load(rollout: Rollout, release: Release, current: Release) -> None:
    """Change the adapters of the running servers and wait for each of them; on failure, restore the current ones."""
    versions = ", ".join(adapter.version for adapter in release.adapters)
    print(f"hot-loading {versions} into the running servers", flush=True)
    config_digest = desired_adapters.config_digest(desired_adapters.serialize(release.adapters))
    end = time.monotonic() + min(HOT_LOAD_SECONDS, rollout.remaining_seconds)
    try:
        _apply_adapters(rollout, release)
        updated: set[str] = set()
        # Servers come and go meanwhile: continue until all servers that are ready now have loaded the adapters.
        while waiting := [
            pod for pod in ready_pods(rollout, release.revision) if pod["metadata"]["uid"] not in updated
        ]:
            for pod in waiting:
                _wait_for_pod(rollout, pod, release.revision, config_digest, end)
                updated.add(pod["metadata"]["uid"])
        if not updated:
            raise StepError("no server is ready")
        _apply(rollout, release)  # the annotations of the Deployment
    except BaseException:
        _apply_adapters(rollout, current)
        raise


def _wait_for_pod(rollout: Rollout, pod: Document, revision: str, config_digest: str, end: float) -> None:
    """Wait until a server serves the adapters of ``config_digest``, or is no longer ready."""

    def exit_reason() -> str:
        ready = {pod["metadata"]["uid"] for pod in ready_pods(rollout, revision)}
        return "" if pod["metadata"]["uid"] in ready else "the server is no longer ready"

    with contextlib.suppress(serving_client.ServerExited), _reach_pod(rollout, pod) as address:
        serving_client.wait_for_adapters(
            address, config_digest, max(1.0, end - time.monotonic()), exit_reason, rollout.sleep
        )


@contextlib.contextmanager
def _reach_pod(rollout: Rollout, pod: Document) -> Iterator[str]:
    """Yield the URL of a pod for this process."""
    if rollout.in_cluster:
        yield pod_address(pod)
        return
    with port_forward.listen(lambda: rollout.cluster.open_port(pod["metadata"]["name"], PORT)) as address:
        yield address


def _rolling_update(rollout: Rollout, release: Release) -> None:
    _apply(rollout, release)
    name = service_workload.name(rollout.name, rollout.track, release.group)
    print(f"rolling update of {name} to revision {release.revision}", flush=True)
    _wait_until_complete(rollout, release)


def _wait_until_complete(rollout: Rollout, release: Release) -> None:
    """Wait until all servers of a release are ready; see ``deploy`` for the errors."""
    name = service_workload.name(rollout.name, rollout.track, release.group)
    reported = ""
    while True:
        live = _live(rollout, release)
        if _is_complete(rollout, live, release):
            return
        service_workload.replace_pods(rollout.cluster, rollout.name, release)
        cause = pod_diagnosis.diagnose_pods(
            rollout.cluster, pods(rollout, release.revision)
        ) or pod_diagnosis.diagnose_deployment(live)
        if cause and cause.final:
            raise cause.error()
        if cause and cause.message != reported:
            reported = cause.message
            print(f"waiting: {cause.message}", flush=True)
        if time.monotonic() > rollout.end or _deadline_exceeded(live):
            if cause:
                raise cause.error()
            raise TimeLimit(f"{name} is not ready before the deadline", "increase pipeline.rollout.deadline")
        rollout.sleep(POLL_SECONDS)


def _apply(rollout: Rollout, release: Release) -> None:
    _apply_adapters(rollout, release)
    workload = service_manifests.workload(
        rollout.name, rollout.track, release, scaled=rollout.scaled, deadline=rollout.remaining_seconds
    )
    for kind, body in workload:
        rollout.cluster.apply(kind, body)


def _apply_adapters(rollout: Rollout, release: Release) -> None:
    rollout.cluster.apply(
        CONFIG_MAPS, service_manifests.adapters_config_map(rollout.name, release.revision, release.adapters)
    )


def _route(rollout: Rollout, release: Release, other: Release | None) -> None:
    """Let the Service select the pods of a release, if those of the other one are of another kind."""
    if other and other.group != release.group:
        service_workload.select(rollout.cluster, rollout.name, release.group)


def _is_complete(rollout: Rollout, live: Document, release: Release) -> bool:
    """Return True if the update is complete: for a Deployment by the conditions of ``kubectl rollout status``."""
    status = live.get("status") or {}
    if _revision(live) != release.revision:
        return False
    if release.group:
        # Their controllers report groups, some versions without the generation that they have observed.
        return len(ready_pods(rollout, release.revision)) >= release.nodes * release.replicas
    if not _is_observed(live):
        return False
    desired = live["spec"].get("replicas", 1)
    updated, total, available = (status.get(key) or 0 for key in ("updatedReplicas", "replicas", "availableReplicas"))
    return bool(updated >= desired and total <= updated and available >= updated and desired > 0)


def _deadline_exceeded(live: Document) -> bool:
    conditions = (live.get("status") or {}).get("conditions") or []
    return _is_observed(live) and any(one.get("reason") == "ProgressDeadlineExceeded" for one in conditions)


def _is_observed(live: Document) -> bool:
    """Return True if the status belongs to the current spec."""
    status, metadata = live.get("status") or {}, live.get("metadata") or {}
    return bool(status.get("observedGeneration", 0) >= metadata.get("generation", 0))


def _live(rollout: Rollout, release: Release) -> Document:
    """Return the object that has the pods of a release, or of another one of the same kind."""
    return service_workload.read(rollout.cluster, rollout.name, rollout.track, release.group)


def _revision(document: Document) -> str:
    return str(((document.get("metadata") or {}).get("annotations") or {}).get(REVISION) or "")


def _is_ready(pod: Document) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
