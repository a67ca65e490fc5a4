"""The object with the pods of a release on a cluster: a Deployment, or a group of nodes for each server."""

from __future__ import annotations

import contextlib
from typing import Any

from steps.kubernetes.client import PODS, SERVICES, Kind, KubernetesClient
from steps.kubernetes.errors import Conflict, KindNotInstalled
from steps.rollout import service_group, service_manifests
from steps.rollout.service_manifests import DEPLOYMENTS, REVISION
from steps.rollout.service_release import SERVICE_LABEL, Release

Document = dict[str, Any]
NOUNS = {"": "Deployment", "leaderworkerset": "LeaderWorkerSet", "statefulset": "StatefulSet"}


def noun(release: Release) -> str:
    """Return the kind of the object, for messages."""
    return NOUNS[release.group]


def name(service: str, track: str, group: str = "") -> str:
    """Return the name of the object."""
    return service_group.set_name(service, group) if group else service_manifests.deployment_name(service, track)


def read(cluster: KubernetesClient, service: str, track: str, group: str = "") -> Document:
    """Return the object; empty if it does not exist."""
    kind = service_group.kinds(group)[-1] if group else DEPLOYMENTS
    return cluster.get(kind, name(service, track, group)) or {}


def delete(cluster: KubernetesClient, service: str, track: str, group: str = "") -> None:
    """Delete the object, and those that only it needs; its kind may be unknown to the cluster."""
    for kind in reversed(service_group.kinds(group) if group else [DEPLOYMENTS]):
        delete_if_present(cluster, kind, name(service, track, group))


def delete_if_present(cluster: KubernetesClient, kind: Kind, name: str) -> None:
    """Delete an object; its kind may be unknown to the cluster."""
    try:
        cluster.delete(kind, name)
    except KindNotInstalled:
        return


def replace_pods(cluster: KubernetesClient, service: str, release: Release) -> None:
    """Delete the pods of other revisions of a StatefulSet, all at once: a group with pods of two does not start.

    A LeaderWorkerSet replaces its groups itself.
    """
    if release.group != "statefulset":
        return
    prefix = f"{service_group.set_name(service, release.group)}-"
    for pod in cluster.list(PODS, labels=f"{SERVICE_LABEL}={service},{service_group.POD_INDEX}"):
        metadata = pod["metadata"]
        is_old = (metadata.get("annotations") or {}).get(REVISION) != release.revision
        if is_old and metadata["name"].startswith(prefix) and not metadata.get("deletionTimestamp"):
            with contextlib.suppress(Conflict):  # another pod of this name has replaced it since the list
                cluster.delete(PODS, metadata["name"], uid=metadata["uid"])


def select(cluster: KubernetesClient, service: str, group: str) -> None:
    """Let the Service select the pods of a kind."""
    absent = dict.fromkeys(service_group.RANK_LABELS.values())  # removed by the merge patch
    labels = absent | service_manifests.backend_labels(service, group)
    cluster.patch(SERVICES, service, {"metadata": {"name": service}, "spec": {"selector": labels}})
