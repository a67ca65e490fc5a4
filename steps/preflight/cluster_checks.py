"""What a cluster and its cloud say beforehand: storage class, claims, and quotas of GPUs; they are only asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient
    from steps.preflight.settings import Settings

Found = Iterator[str | StepError]


def check(given: Settings) -> Found:
    """Ask the Kubernetes API, and Azure where it makes the nodes. What we may not read is told and is no fault."""
    from steps.kubernetes import client as kubernetes_client

    try:
        cluster = kubernetes_client.connect()
    except BadInput as error:
        yield f"the cluster was not asked: {error.message}"
    else:
        yield from _storage(cluster, given)
        yield from _namespace_quota(cluster, given)
    if given.provider == "aks":
        yield from _azure(given)


def _storage(cluster: KubernetesClient, given: Settings) -> Found:
    from steps.kubernetes.client import Kind

    classes, claims = (
        Kind("storage.k8s.io/v1", "storageclasses", cluster_wide=True),
        Kind("v1", "persistentvolumeclaims"),
    )
    if given.storage_class:
        fix = "kubectl get storageclass lists what there is; pipeline.storage.storageClassName names one"
        yield _there(cluster, classes, given.storage_class, "storage class", fix)
    for name in dict.fromkeys(given.claims):
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
        return BadInput(f"{what} {name} has lost its volume", "make it anew")
    return f"{what} {name} is there"


def _namespace_quota(cluster: KubernetesClient, given: Settings) -> Found:
    """A ResourceQuota that can never let a pod of this run in."""
    from steps.kubernetes.client import Kind

    try:
        quotas = cluster.list(Kind("v1", "resourcequotas"))
    except BadInput as error:
        yield f"quotas of the namespace were not looked at: {error.message}"
        return
    for quota in quotas:
        limit = quota.get("spec", {}).get("hard", {}).get(f"requests.{given.gpu_resource}")
        if limit is None:
            continue
        name = quota["metadata"]["name"]
        if int(limit) < given.gpus:
            yield InsufficientCapacity(
                f"ResourceQuota {name} allows {limit} {given.gpu_resource} in namespace {cluster.namespace}; a pod of"
                f" this run asks for {given.gpus}",
                "raise it (argo/install/quota.yaml), or ask for fewer GPUs",
            )
        else:
            yield f"ResourceQuota {name} allows {limit} {given.gpu_resource}, {given.gpus} are asked for"


def _azure(given: Settings) -> Found:
    """Whether any of the sizes asked for can be had; one is enough."""
    from steps.provision import aks, aks_capacity, aks_client, nodes

    if not given.instance_type:
        return
    cluster = aks_client.connect(given)
    location, _ = cluster.location_and_system_pool()
    left, refused = aks_capacity.split(cluster, given, location, nodes.node_options(given))
    for choice, why in refused if left else ():
        yield f"{choice} is not to be had: {why}"
    if left:
        yield f"{left[0]} may be had in {location}, as far as Azure says"
    else:
        reasons = "; ".join(f"{choice}: {why}" for choice, why in refused)
        yield InsufficientCapacity(f"none of the sizes asked for can be had: {reasons}", aks.QUOTA_HELP)
