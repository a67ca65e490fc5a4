"""The canary takes over, or what was in service before comes back: ``argotune promote`` and ``argotune rollback``."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

from steps.kubernetes.client import CONFIG_MAPS, KubernetesClient
from steps.rollout import service_manifests, service_release, service_update
from steps.rollout.service_manifests import CANARY, DEPLOYMENTS, ROUTES, STABLE
from steps.rollout.service_pod import SERVICE_LABEL
from steps.rollout.service_release import Release, Releases
from steps.rollout.service_update import Rollout
from steps.runtime.errors import BadInput


def promote(cluster: KubernetesClient, name: str, seconds: float, sleep: Callable[[float], None] = time.sleep) -> str:
    """Give the canary all requests; returns a sentence that says so.

    Raises:
        BadInput: there is no such service, or it has no canary.
        StepError: as ``service_update.put``; then all is as before.
    """
    known = _known(cluster, name)
    if known.canary is None or known.current is None:
        raise BadInput(f"{name} has no canary", "pipeline.rollout.canary of a Workspace makes one")
    where = _stable(cluster, name, known, seconds, sleep)
    release = dataclasses.replace(known.canary, replicas=known.current.replicas)
    served = service_update.put(where, release, known.current)
    record(where, replaced(known, served))
    return f"{name} serves {_described(served)}; before: {_described(known.current)}"


def roll_back(
    cluster: KubernetesClient, name: str, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> str:
    """End the canary; where there is none, have the release before the present one in service again.

    Raises:
        BadInput: there is no such service, or nothing to go back to.
        StepError: as ``service_update.put``; then all is as before.
    """
    known = _known(cluster, name)
    where = _stable(cluster, name, known, seconds, sleep)
    if known.canary and known.current:
        if not service_update.serves(where, known.current):
            print("a promotion was cut short: back to what is on record", flush=True)
            service_update.restore(where, known.current)
        record(where, dataclasses.replace(known, canary=None, percent=0))
        return f"the canary {_described(known.canary)} is gone; {name} serves {_described(known.current)}"
    if known.previous is None or known.current is None:
        raise BadInput(f"nothing was in service before what {name} serves", "roll out another adapter")
    served = service_update.put(where, known.previous, known.current)
    record(where, replaced(known, served))
    return f"{name} serves {_described(served)} again; before: {_described(known.current)}"


def replaced(known: Releases, served: Release) -> Releases:
    """What is known once a release has taken the place of the one in service, and of any canary."""
    same = known.current and (known.current.shape, known.current.adapters) == (served.shape, served.adapters)
    return dataclasses.replace(
        known, current=served, previous=known.previous if same else known.current, canary=None, percent=0
    )


def record(where: Rollout, known: Releases) -> None:
    """Write down what is in service, and remove what neither is nor was before.

    The record comes last: whoever is killed before finds in it that there is something to do yet.
    """
    cluster, name = where.cluster, where.name
    if known.gateway:
        cluster.apply(ROUTES, service_manifests.route(name, known.gateway, known.percent if known.canary else 0))
    if known.canary is None:
        cluster.delete(DEPLOYMENTS, service_manifests.deployment_name(name, CANARY))
    kept = {service_manifests.wanted_name(name, release.revision) for release in known.known()}
    for found in cluster.list(CONFIG_MAPS, labels=f"{SERVICE_LABEL}={name}"):
        its_name = found["metadata"]["name"]
        if its_name.startswith(service_manifests.wanted_name(name, "")) and its_name not in kept:
            cluster.delete(CONFIG_MAPS, its_name)
    service_release.write(cluster, name, known)


def _known(cluster: KubernetesClient, name: str) -> Releases:
    known = service_release.read(cluster, name)
    if known.current is None:
        raise BadInput(
            f"no service {name} of argotune in namespace {cluster.namespace}", "see kubectl get deployments"
        )
    return known


def _stable(
    cluster: KubernetesClient, name: str, known: Releases, seconds: float, sleep: Callable[[float], None]
) -> Rollout:
    inside = "KUBERNETES_SERVICE_HOST" in os.environ
    end = time.monotonic() + seconds
    return Rollout(cluster, name, STABLE, known.scaled, end, reachable=inside, sleep=sleep)


def _described(release: Release | None) -> str:
    if release is None:
        return "nothing"
    return ", ".join(adapter.version for adapter in release.adapters) or f"revision {release.revision}"
