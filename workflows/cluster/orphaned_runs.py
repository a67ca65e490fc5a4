"""Reasons why GPU nodes are orphaned: their run is gone or has ended, or their lease has expired.

A Workflow is looked up by its uid, and only in the cluster of the nodes: in another one every run would seem gone. If
the lookup is not possible, only the lease counts.
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
"""Argo sets them after the exit handler, which releases nodes, has ended."""


@dataclass
class Reasons:
    """Reasons of orphaned nodes, and failed lookups."""

    by_run: dict[str, str] = field(default_factory=dict)
    """Reason by uid of the run."""
    failed_lookups: list[str] = field(default_factory=list)
    """Messages of failed lookups."""

    def reason(self, nodes: OrphanedNodes) -> str:
        """Return why nodes are orphaned; empty if, as far as is known, they belong to a run."""
        return self.by_run.get(nodes.run, "")


def find_reasons(
    provider: ModuleType, cluster_ref: ClusterRef, existing: Sequence[OrphanedNodes], moment: datetime
) -> Reasons:
    """Look up the runs of existing nodes."""
    from steps.runtime.errors import StepError

    reasons = Reasons({nodes.run: EXPIRED for nodes in existing if nodes.expired(moment)})
    if not existing:
        return reasons
    try:
        cluster = _connect(provider, cluster_ref)
    except StepError as error:
        reasons.failed_lookups.append(error.message)
        return reasons
    for nodes in existing:
        if not nodes.workflow or not nodes.namespace:
            reasons.failed_lookups.append(f"{nodes.name} has no tags of its run")
            continue
        try:
            reason = _run_reason(cluster, nodes)
        except StepError as error:
            reasons.failed_lookups.append(error.message)
            continue
        if reason:
            reasons.by_run[nodes.run] = reason
    reasons.failed_lookups = list(dict.fromkeys(reasons.failed_lookups))
    return reasons


def _connect(provider: ModuleType, cluster_ref: ClusterRef) -> KubernetesClient:
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError

    cluster = kubernetes_client.connect()
    if not provider.is_same_cluster(cluster_ref, cluster.host):
        raise StepError(
            f"the kubeconfig selects {cluster.host}, not the cluster of these nodes", "set KUBECONFIG to it"
        )
    return cluster


def _run_reason(cluster: KubernetesClient, nodes: OrphanedNodes) -> str:
    from steps.kubernetes.client import WORKFLOWS

    workflow = cluster.get(WORKFLOWS, nodes.workflow, nodes.namespace)
    if workflow is None or workflow["metadata"].get("uid") != nodes.run:
        return GONE
    return ENDED if (workflow.get("status") or {}).get("phase") in ENDED_PHASES else ""
