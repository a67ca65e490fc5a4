"""Read-only checks of the cluster and its cloud: storage class, volume claims, GPU quotas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient
    from steps.preflight.settings import Settings

Outcomes = Iterator[str | StepError]


def check(settings: Settings) -> Outcomes:
    """Check the Kubernetes API, and Azure for AKS node pools. Missing read permissions are reported, not errors."""
    from steps.kubernetes import client as kubernetes_client

    try:
        cluster = kubernetes_client.connect()
    except BadInput as error:
        yield f"the cluster was not checked: {error.message}"
    else:
        yield from _storage(cluster, settings)
        yield from _namespace_quota(cluster, settings)
    if settings.provider == "aks":
        yield from _azure(settings)


def _storage(cluster: KubernetesClient, settings: Settings) -> Outcomes:
    from steps.kubernetes.client import Kind

    classes, claims = (
        Kind("storage.k8s.io/v1", "storageclasses", cluster_wide=True),
        Kind("v1", "persistentvolumeclaims"),
    )
    if settings.storage_class:
        fix = "list them with kubectl get storageclass, and set pipeline.storage.storageClassName"
        yield _check_exists(cluster, classes, settings.storage_class, "storage class", fix)
    for name in dict.fromkeys(settings.claims):
        fix = f"create it, or use another: kubectl get pvc --namespace {cluster.namespace}"
        yield _check_exists(cluster, claims, name, "volume claim", fix)


def _check_exists(cluster: KubernetesClient, kind: Any, name: str, label: str, fix: str) -> str | StepError:
    try:
        document = cluster.get(kind, name)
    except BadInput as error:
        return f"{label} {name} was not checked: {error.message}"
    if document is None:
        return BadInput(f"{label} {name} not found", fix)
    if document.get("status", {}).get("phase") == "Lost":
        return BadInput(f"{label} {name} has lost its volume", "create it again")
    return f"{label} {name} exists"


def _namespace_quota(cluster: KubernetesClient, settings: Settings) -> Outcomes:
    """Check for a ResourceQuota that can never admit a pod of this run."""
    from steps.kubernetes.client import Kind

    try:
        quotas = cluster.list(Kind("v1", "resourcequotas"))
    except BadInput as error:
        yield f"quotas of the namespace were not checked: {error.message}"
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


def _azure(settings: Settings) -> Outcomes:
    """Check that at least one of the requested instance types is available."""
    from steps.provision import aks, aks_capacity, aks_client, nodes

    if not settings.instance_type:
        return
    cluster = aks_client.connect(settings)
    location, _ = cluster.location_and_system_pool()
    available, unavailable = aks_capacity.split(cluster, settings, location, nodes.node_options(settings))
    for option, reason in unavailable if available else ():
        yield f"{option} is unavailable: {reason}"
    if available:
        yield f"{available[0]} is available in {location}, according to Azure"
    else:
        reasons = "; ".join(f"{option}: {reason}" for option, reason in unavailable)
        yield InsufficientCapacity(f"none of the requested instance types is available: {reasons}", aks.QUOTA_HELP)
