"""Read-only checks of the cluster and its cloud: storage class, volume claims, GPU quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.runtime.errors import BadInput, InsufficientCapacity
from steps.runtime.outcomes import NotChecked, Outcomes

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient
    from steps.preflight.settings import Settings


def check(settings: Settings) -> Outcomes:
    """Check the Kubernetes API, and Azure for AKS node pools. Missing read permissions are reported, not errors."""
    from steps.kubernetes import client as kubernetes_client

    try:
        cluster = kubernetes_client.connect()
    except BadInput as error:
        yield NotChecked("the cluster", error.message)
    else:
        yield from _storage(cluster, settings)
        yield from _namespace_quota(cluster, settings)
        yield from _job_sets(cluster, settings)
    if settings.provider == "aks":
        yield from _azure(settings)


def _storage(cluster: KubernetesClient, settings: Settings) -> Outcomes:
    from steps.kubernetes.claims import STORAGE_CLASSES, check_claim

    if name := settings.storage_class:
        try:
            if cluster.get(STORAGE_CLASSES, name) is None:
                fix = "list them with kubectl get storageclass, and set pipeline.storage.storageClassName"
                yield BadInput(f"storage class {name} not found", fix)
            else:
                yield f"storage class {name} exists"
        except BadInput as error:
            yield NotChecked(f"storage class {name}", error.message)
    for claim in dict.fromkeys(settings.claims):
        yield check_claim(cluster, claim)


def _namespace_quota(cluster: KubernetesClient, settings: Settings) -> Outcomes:
    """Check for a ResourceQuota that can never admit a pod of this run."""
    from steps.kubernetes.client import Kind

    try:
        quotas = cluster.list(Kind("v1", "resourcequotas"))
    except BadInput as error:
        yield NotChecked("the quota of the namespace", error.message)
        return
    for quota in quotas:
        limit = quota.get("spec", {}).get("hard", {}).get(f"requests.{settings.gpu_resource}")
        if limit is None:
            continue
        name = quota["metadata"]["name"]
        if int(limit) < settings.gpus:
            yield InsufficientCapacity(
                f"ResourceQuota {name} allows {limit} {settings.gpu_resource} in namespace {cluster.namespace};"
                f" a pod of this run requests {settings.gpus}",
                "raise it (argo/install/quota.yaml), or request fewer GPUs",
            )
        else:
            yield f"ResourceQuota {name} allows {limit} {settings.gpu_resource}, {settings.gpus} requested"


def _job_sets(cluster: KubernetesClient, settings: Settings) -> Outcomes:
    """Check for JobSet if the plan requires it."""
    from steps.tune import node_job_set

    if settings.job_kind == "jobset" and settings.count > 1:
        has_kind = cluster.has_kind(node_job_set.JOB_SETS)
        yield "the cluster has JobSet" if has_kind else node_job_set.not_installed()


def _azure(settings: Settings) -> Outcomes:
    """Check that at least one of the requested instance types is available."""
    from steps.provision import aks, aks_capacity, aks_client, nodes

    if not settings.instance_type:
        return
    cluster = aks_client.connect(settings)
    location, _ = cluster.location_and_system_pool()
    available, unavailable = aks_capacity.split(cluster, settings, location, nodes.node_options(settings))
    if available:
        others = "".join(f"; {option} is unavailable: {reason}" for option, reason in unavailable)
        yield f"{available[0]} is available in {location}, according to Azure{others}"
    else:
        reasons = "; ".join(f"{option}: {reason}" for option, reason in unavailable)
        yield InsufficientCapacity(f"none of the requested instance types is available: {reasons}", aks.QUOTA_HELP)
