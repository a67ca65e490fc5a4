"""A release comes into service, and goes back if it does not answer: hot where it can, else a rolling update.

Hot: the servers that run take other adapters (their ConfigMap says which, ``adapter_switch`` follows). Rolling:
a new server is ready before an old one goes. Either way nothing is recorded before the release has answered, so a
run that is killed at any moment leaves what was in service on record, and the next one ends well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steps.kubernetes.client import CONFIG_MAPS, PODS, KindNotInstalled, KubernetesClient
from steps.rollout import pod_diagnosis, service_manifests
from steps.rollout.service_manifests import DEPLOYMENTS, REVISION, STABLE, TRACK_LABEL
from steps.rollout.service_pod import SERVICE_LABEL
from steps.rollout.service_release import Release
from steps.runtime.errors import StepError, TimeLimit
from steps.serving import desired_adapters, serving_client
from steps.serving.drain import PORT

Document = dict[str, Any]
POLL_SECONDS = 2.0
HOT_SECONDS = 300.0
"""For hot-loading: a kubelet takes up to two minutes to hand on a changed ConfigMap."""


@dataclass(frozen=True)
class Rollout:
    """One track of a service, and the cluster it is in."""

    cluster: KubernetesClient
    name: str
    track: str = STABLE
    scaled: bool = False
    end: float = 0.0
    """Moment (of ``time.monotonic``) by which it must be in service."""
    reachable: bool = True
    """Whether pods can be asked from here: in the cluster."""
    sleep: Callable[[float], None] = time.sleep

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return max(1.0, self.end - time.monotonic())

    @property
    def deployment(self) -> str:
        """Name of the Deployment."""
        return service_manifests.deployment_name(self.name, self.track)


def put(rollout: Rollout, release: Release, before: Release | None) -> Release:
    """Bring a release into service in place of the one ``before``, and leave that one if it fails.

    Raises:
        InsufficientCapacity: there is no node or no memory for it.
        NoImageVolume: its pods can't be started with the images that they shall mount.
        StepError: it does not come up; the message tells why.
        TimeLimit: it does not within the deadline.
    """
    if before and rollout.reachable and release.adapters and before.shape == release.shape:
        hot = dataclasses.replace(release, revision=before.revision, replicas=before.replicas)
        if _runs(rollout, before.revision):
            try:
                _hot(rollout, hot, before)
                return hot
            except StepError as error:
                print(f"not while it runs ({error.message}): a rolling update instead", flush=True)
    # A canary never has the revision of servers beside it, whose list of adapters goes by that name.
    started = release.started(apart_from="" if rollout.track == STABLE else rollout.track)
    if before and started.revision == before.revision and started.adapters != before.adapters:
        # The servers of that revision were hot-loaded since: they are not those that are wanted.
        started = release.started(apart_from=before.revision)
    try:
        _roll(rollout, started)
    except BaseException:
        take_back(rollout, before, started)
        raise
    return started


def take_back(rollout: Rollout, before: Release | None, failed: Release) -> None:
    """Have the release ``before`` in service again; where there was none, nothing is left of the one that failed."""
    if before is None:
        print("there was nothing in service before: what did not come up is removed", flush=True)
        rollout.cluster.delete(DEPLOYMENTS, rollout.deployment)
    else:
        print(f"back to what was in service (revision {before.revision})", flush=True)
        _apply(rollout, before)
    if before is None or failed.revision != before.revision:
        rollout.cluster.delete(CONFIG_MAPS, service_manifests.wanted_name(rollout.name, failed.revision))


def serves(rollout: Rollout, release: Release) -> bool:
    """Whether the cluster is told to serve a release, as it is on record."""
    live = rollout.cluster.get(DEPLOYMENTS, rollout.deployment) or {}
    wanted = service_manifests.wanted(rollout.name, release.revision, release.adapters)
    told = rollout.cluster.get(CONFIG_MAPS, wanted["metadata"]["name"]) or {}
    of_live = (live.get("metadata") or {}).get("annotations") or {}
    return bool(of_live.get(REVISION) == release.revision and told.get("data") == wanted["data"])


def restore(rollout: Rollout, release: Release) -> None:
    """Have a release in service as it is on record, whatever is now.

    Raises:
        StepError: as ``put``.
    """
    _roll(rollout, release)


def ready_pods(rollout: Rollout, revision: str) -> list[Document]:
    """Pods of a revision that answer."""
    return [pod for pod in pods(rollout, revision) if _is_ready(pod)]


def pods(rollout: Rollout, revision: str) -> list[Document]:
    """Pods of a revision that are not on their way out."""
    select = f"{SERVICE_LABEL}={rollout.name},{TRACK_LABEL}={rollout.track}"
    found = rollout.cluster.list(PODS, labels=select)
    return [
        pod
        for pod in found
        if not pod["metadata"].get("deletionTimestamp")
        and (pod["metadata"].get("annotations") or {}).get(REVISION) == revision
    ]


def address(pod: Document, port: int = PORT) -> str:
    """Where a pod answers, within the cluster."""
    ip = pod["status"]["podIP"]
    return f"http://[{ip}]:{port}" if ":" in ip else f"http://{ip}:{port}"


def remove(cluster: KubernetesClient, kind: Any, name: str) -> None:
    """Delete an object, if there is one and its kind is known."""
    try:
        cluster.delete(kind, name)
    except KindNotInstalled:
        return


def _runs(rollout: Rollout, revision: str) -> bool:
    """Whether the servers of a revision are the ones in service."""
    live = rollout.cluster.get(DEPLOYMENTS, rollout.deployment)
    found = live and (live["metadata"].get("annotations") or {}).get(REVISION) == revision
    return bool(found) and bool(ready_pods(rollout, revision))


def _hot(rollout: Rollout, release: Release, before: Release) -> None:
    """Tell the servers which adapters to serve, and wait for each of them; on failure tell them the old ones."""
    print(f"hot-loading {', '.join(one.version for one in release.adapters)} into the running servers", flush=True)
    mark = desired_adapters.config_digest(desired_adapters.serialize(release.adapters))
    end = time.monotonic() + min(HOT_SECONDS, rollout.left)
    try:
        _want(rollout, release)
        asked: set[str] = set()
        # Servers may come and go meanwhile: until all that are ready now have taken the adapters.
        while waiting := [pod for pod in ready_pods(rollout, release.revision) if pod["metadata"]["uid"] not in asked]:
            for pod in waiting:
                _takes(rollout, pod, release.revision, mark, end)
                asked.add(pod["metadata"]["uid"])
        if not asked:
            raise StepError("no server is ready")
        _apply(rollout, release)  # what the Deployment says of itself
    except BaseException:
        _want(rollout, before)
        raise


def _takes(rollout: Rollout, pod: Document, revision: str, mark: str, end: float) -> None:
    """Wait until a server serves the adapters of ``mark``, or has left."""

    def gone() -> str:
        there = {one["metadata"]["uid"] for one in ready_pods(rollout, revision)}
        return "" if pod["metadata"]["uid"] in there else "the server has left"

    with contextlib.suppress(serving_client.Gone):
        serving_client.wait(address(pod), mark, max(1.0, end - time.monotonic()), gone, rollout.sleep)


def _roll(rollout: Rollout, release: Release) -> None:
    _apply(rollout, release)
    print(f"rolling update of {rollout.deployment} to revision {release.revision}", flush=True)
    told = ""
    while True:
        live = rollout.cluster.get(DEPLOYMENTS, rollout.deployment) or {}
        if _is_complete(live, release.revision):
            return
        cause = pod_diagnosis.of_pods(rollout.cluster, pods(rollout, release.revision)) or pod_diagnosis.of_deployment(
            live
        )
        if cause and cause.final:
            raise cause.error()
        if cause and cause.message != told:
            told = cause.message
            print(f"waiting: {cause.message}", flush=True)
        if time.monotonic() > rollout.end or _is_late(live):
            if cause:
                raise cause.error()
            raise TimeLimit(
                f"{rollout.deployment} is not ready within the deadline", "raise pipeline.rollout.deadline"
            )
        rollout.sleep(POLL_SECONDS)


def _apply(rollout: Rollout, release: Release) -> None:
    _want(rollout, release)
    rollout.cluster.apply(
        DEPLOYMENTS,
        service_manifests.deployment(
            rollout.name, rollout.track, release, scaled=rollout.scaled, deadline=rollout.left
        ),
    )


def _want(rollout: Rollout, release: Release) -> None:
    rollout.cluster.apply(CONFIG_MAPS, service_manifests.wanted(rollout.name, release.revision, release.adapters))


def _is_complete(live: Document, revision: str) -> bool:
    """As ``kubectl rollout status`` decides it."""
    metadata, status = live.get("metadata") or {}, live.get("status") or {}
    if (metadata.get("annotations") or {}).get(REVISION) != revision:
        return False
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return False
    asked = live["spec"].get("replicas", 1)
    updated, total, available = (status.get(key) or 0 for key in ("updatedReplicas", "replicas", "availableReplicas"))
    return bool(updated >= asked and total <= updated and available >= updated and asked > 0)


def _is_late(live: Document) -> bool:
    conditions = (live.get("status") or {}).get("conditions") or []
    observed = (live.get("status") or {}).get("observedGeneration", 0) >= (live.get("metadata") or {}).get(
        "generation", 0
    )
    return observed and any(one.get("reason") == "ProgressDeadlineExceeded" for one in conditions)


def _is_ready(pod: Document) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
