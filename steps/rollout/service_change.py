"""Promote the canary, or roll back to the previous release: ``argotune promote`` and ``argotune rollback``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from steps.kubernetes.client import CONFIG_MAPS, KubernetesClient
from steps.rollout import service_manifests, service_release, service_update, service_workload
from steps.rollout.service_manifests import DEPLOYMENTS, ROUTES
from steps.rollout.service_release import CANARY, SERVICE_LABEL, STABLE, Release, Releases
from steps.rollout.service_update import Rollout
from steps.runtime.errors import BadInput
from steps.runtime.pod import is_pod, namespace_flag


def promote(cluster: KubernetesClient, name: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> str:
    """Send all requests to the release of the canary; return a sentence for the log.

    Raises:
        BadInput: The service does not exist or has no canary.
        StepError: See ``service_update.deploy``; the current release stays live.
    """
    known = _read_known(cluster, name)
    if known.canary is None or known.current is None:
        raise BadInput(f"{name} has no canary", "set pipeline.rollout.canary in the Workspace and run it")
    target = _stable_rollout(cluster, name, known, seconds, sleep)
    release = dataclasses.replace(known.canary, replicas=known.current.replicas)
    served = service_update.deploy(target, release, known.current)
    record_releases(target, replace_current(known, served))
    return f"{name} serves {_describe(served)}; previous release: {_describe(known.current)}"


def rollback(cluster: KubernetesClient, name: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> str:
    """Remove the canary, or without one deploy the previous release again; return a sentence for the log.

    Raises:
        BadInput: The service does not exist or has no previous release.
        StepError: See ``service_update.deploy``; the current release stays live.
    """
    known = _read_known(cluster, name)
    target = _stable_rollout(cluster, name, known, seconds, sleep)
    if known.canary and known.current:
        if not service_update.is_serving(target, known.current):
            print("an interrupted promotion was found; restoring the recorded release", flush=True)
            service_update.restore(target, known.current)
        record_releases(target, dataclasses.replace(known, canary=None, percent=0))
        return f"removed the canary {_describe(known.canary)}; {name} serves {_describe(known.current)}"
    if known.previous is None or known.current is None:
        raise BadInput(f"{name} has no previous release to roll back to", "roll out another adapter")
    served = service_update.deploy(target, known.previous, known.current)
    record_releases(target, replace_current(known, served))
    return f"rolled back: {name} serves {_describe(served)}; previous release: {_describe(known.current)}"


def replace_current(known: Releases, served: Release) -> Releases:
    """Return the record after a release has replaced the current one and any canary."""
    same = known.current and (known.current.pod_template_hash, known.current.adapters) == (
        served.pod_template_hash,
        served.adapters,
    )
    return dataclasses.replace(
        known, current=served, previous=known.previous if same else known.current, canary=None, percent=0
    )


def record_releases(target: Rollout, known: Releases) -> None:
    """Record the releases of a service and delete the objects of all others.

    The record is written last: if the process is killed before, the next one repeats the work.
    """
    cluster, name = target.cluster, target.name
    if known.gateway:
        cluster.apply(ROUTES, service_manifests.route(name, known.gateway, known.percent if known.canary else 0))
    if known.canary is None:
        cluster.delete(DEPLOYMENTS, service_manifests.deployment_name(name, CANARY))
    if known.current:
        former = {*known.attempted, *(release.group for release in (known.previous,) if release)}
        for group in sorted(former - {known.current.group}):
            service_workload.delete(cluster, name, STABLE, group)
        known = dataclasses.replace(known, attempted=[])
    retained = {service_manifests.config_map_name(name, release.revision) for release in known.retained()}
    for config_map in cluster.list(CONFIG_MAPS, labels=f"{SERVICE_LABEL}={name}"):
        map_name = config_map["metadata"]["name"]
        if map_name.startswith(service_manifests.config_map_name(name, "")) and map_name not in retained:
            cluster.delete(CONFIG_MAPS, map_name)
    service_release.write_releases(cluster, name, known)


def _read_known(cluster: KubernetesClient, name: str) -> Releases:
    known = service_release.read_releases(cluster, name)
    if known.current is None:
        raise BadInput(
            f"no argotune service {name} in namespace {cluster.namespace}",
            f"run kubectl get services --selector {SERVICE_LABEL}{namespace_flag(cluster.namespace)}",
        )
    return known


def _stable_rollout(
    cluster: KubernetesClient, name: str, known: Releases, seconds: float, sleep: Callable[[float], None]
) -> Rollout:
    end = time.monotonic() + seconds
    return Rollout(cluster, name, STABLE, known.scaled, end, in_cluster=is_pod(), sleep=sleep)


def _describe(release: Release | None) -> str:
    if release is None:
        return "nothing"
    return ", ".join(adapter.version for adapter in release.adapters) or f"revision {release.revision}"
