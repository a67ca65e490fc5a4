"""Check of a PersistentVolumeClaim before a pod mounts it."""

from __future__ import annotations

from steps.kubernetes.client import Document, Kind, KubernetesClient
from steps.runtime.errors import BadInput, StepError
from steps.runtime.outcomes import NotChecked

CLAIMS = Kind("v1", "persistentvolumeclaims")
STORAGE_CLASSES = Kind("storage.k8s.io/v1", "storageclasses", cluster_wide=True)
LATE_BINDING = "WaitForFirstConsumer"


def check_claim(cluster: KubernetesClient, name: str) -> str | StepError:
    """Return a sentence if pods can mount the claim or it cannot be read, else the error."""
    try:
        claim = cluster.get(CLAIMS, name)
    except BadInput as error:
        return NotChecked(f"volume claim {name}", error.message)
    if claim is None:
        fix = f"create it, or use another: kubectl get pvc --namespace {cluster.namespace}"
        return BadInput(f"volume claim {name} not found", fix)
    if (claim.get("metadata") or {}).get("deletionTimestamp"):
        return BadInput(f"volume claim {name} is being deleted", "create it again, once no pod uses it")
    phase = (claim.get("status") or {}).get("phase")
    if phase == "Lost":
        return BadInput(f"volume claim {name} has lost its volume", "create it again")
    if phase == "Pending" and not _binds_when_mounted(cluster, claim):
        fix = f"kubectl describe pvc {name} --namespace {cluster.namespace} shows why; check its storage class"
        return StepError(f"volume claim {name} is Pending: it has no volume", fix)
    return f"volume claim {name} exists"


def _binds_when_mounted(cluster: KubernetesClient, claim: Document) -> bool:
    """Return True if a claim without a volume gets one from the first pod that mounts it."""
    name = (claim.get("spec") or {}).get("storageClassName")
    if not name:
        return False
    try:
        storage_class = cluster.get(STORAGE_CLASSES, name)
    except BadInput:
        return True  # unknown without the permission
    return (storage_class or {}).get("volumeBindingMode") == LATE_BINDING
