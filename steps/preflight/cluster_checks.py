"""Checks of the cluster and its cloud, read-only: storage class, volume claims, GPU quotas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient
    from steps.preflight.settings import Settings

Found = Iterator[str | StepError]


def check(settings: Settings) -> Found:
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


def _storage(cluster: KubernetesClient, settings: Settings) -> Found:
    from steps.kubernetes.client import Kind

    classes, claims = (
        Kind("storage.k8s.io/v1", "storageclasses", cluster_wide=True),
        Kind("v1", "persistentvolumeclaims"),
    )
    if settings.storage_class:
        fix = "kubectl get storageclass lists what there is; pipeline.storage.storageClassName names one"
        yield _there(cluster, classes, settings.storage_class, "storage class", fix)
    for name in dict.fromkeys(settings.claims):
        fix = f"make it, or name another: kubectl get pvc --namespace {cluster.namespace}"
        yield _there(cluster, claims, name, "volume claim", fix)


def _there(cluster: KubernetesClient, kind: Any, name: str, what: str, fix: str) -> str | StepError:
    try:
        found = cluster.get(kind, name)
    except BadInput as error:
        return f"{what} {name} was not looked for: {error.message}"
    if found is None:
        return BadInput(f"there is no {what} {name}", fix)
    if found.get("status", {}).get("phase") == "Lost":
        return BadInput(f"{what} {name} has lost its volume", "create it again")
    return f"{what} {name} is there"


def _namespace_quota(cluster: KubernetesClient, settings: Settings) -> Found:
    """Check for a ResourceQuota that can never admit a pod of this run."""
    from steps.kubernetes.client import Kind

    try:
        quotas = cluster.list(Kind("v1", "resourcequotas"))
    except BadInput as error:
        yield f"quotas of the namespace were not looked at: {error.message}"
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
                "raise it (argo/install/quota.yaml), or ask for fewer GPUs",
            )
        else:
            yield f"ResourceQuota {name} allows {limit} {settings.gpu_resource}, {settings.gpus} are asked for"


def _azure(settings: Settings) -> Found:
    """Check that at least one of the requested instance types is available."""
    from steps.provision import aks, aks_capacity, aks_client, nodes

    if not settings.instance_type:
        return
    cluster = aks_client.connect(settings)
    location, _ = cluster.location_and_system_pool()
    left, refused = aks_capacity.split(cluster, settings, location, nodes.node_options(settings))
    for choice, why in refused if left else ():
        yield f"{choice} is unavailable: {why}"
    if left:
        yield f"{left[0]} is available in {location}, according to Azure"
    else:
        reasons = "; ".join(f"{choice}: {why}" for choice, why in refused)
        yield InsufficientCapacity(f"none of the requested instance types is available: {reasons}", aks.QUOTA_HELP)
