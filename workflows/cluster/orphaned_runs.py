"""Why what a run made belongs to nobody any more: its Workflow is gone or has ended, or its lease is over.

A Workflow is looked up where it says that it is, by its uid, and only in the cluster that the nodes are in: elsewhere
every run would look gone. Where that can't be, the lease alone decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient
    from steps.provision.nodes import OrphanedNodes
    from steps.provision.settings import ClusterRef

GONE, ENDED, EXPIRED = "run is gone", "run ended", "lease expired"
ENDED_PHASES = ("Succeeded", "Failed", "Error")
"""Argo sets them when the exit handler, which gives nodes back, has ended too."""


@dataclass
class Reasons:
    """What is left behind, and what could not be told."""

    by_run: dict[str, str] = field(default_factory=dict)
    """Reason by the run's uid."""
    unknown: list[str] = field(default_factory=list)
    """Why runs could not be looked up, if so."""

    def of(self, found: OrphanedNodes) -> str:
        """Why something is left behind; empty where it belongs to a run, as far as is known."""
        return self.by_run.get(found.run, "")


def reasons(provider: ModuleType, place: ClusterRef, there: Sequence[OrphanedNodes], moment: datetime) -> Reasons:
    """Look up the runs of what is there."""
    from steps.runtime.errors import StepError

    told = Reasons({one.run: EXPIRED for one in there if one.expired(moment)})
    if not there:
        return told
    try:
        cluster = _connect(provider, place)
    except StepError as error:
        told.unknown.append(error.message)
        return told
    for one in there:
        if not one.workflow or not one.namespace:
            told.unknown.append(f"{one.name} does not say where its run is")
            continue
        try:
            reason = _fate(cluster, one)
        except StepError as error:
            told.unknown.append(error.message)
            continue
        if reason:
            told.by_run[one.run] = reason
    told.unknown = list(dict.fromkeys(told.unknown))
    return told


def _connect(provider: ModuleType, place: ClusterRef) -> KubernetesClient:
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError

    cluster = kubernetes_client.connect()
    if not provider.is_same_cluster(place, cluster.host):
        raise StepError(f"the kubeconfig leads to {cluster.host}, not to the cluster of these nodes")
    return cluster


def _fate(cluster: KubernetesClient, one: OrphanedNodes) -> str:
    from steps.kubernetes.client import WORKFLOWS

    workflow = cluster.get(WORKFLOWS, one.workflow, one.namespace)
    if workflow is None or workflow["metadata"].get("uid") != one.run:
        return GONE
    return ENDED if (workflow.get("status") or {}).get("phase") in ENDED_PHASES else ""
