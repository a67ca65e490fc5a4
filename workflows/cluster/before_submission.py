"""Checks of a cluster before a Workflow is created on it: its volume claims, and who holds the GPUs that it waits for.

They read only the compiled document. What the user is not allowed to read is not checked.
"""

from __future__ import annotations

from collections.abc import Iterator

from workflows.cluster import gpu_holders
from workflows.cluster.failures import ApiFailure
from workflows.cluster.kubernetes_api import KubernetesWorkflows
from workflows.cluster.workflows_api import Document, Workflows
from workflows.errors import Problem
from workflows.runs.status import WORKSPACE_LABEL


def find_problems(api: Workflows, document: Document) -> tuple[list[Problem], list[Problem]]:
    """Return the errors that fail a run at its start, and warnings about one that will wait; none with an Argo server.

    An object that is no Workflow yet starts runs later: it has no errors, only warnings.

    Raises:
        ApiFailure: the cluster does not answer, or rejects the credentials.
    """
    if not isinstance(api, KubernetesWorkflows):
        return [], []
    spec = document["spec"].get("workflowSpec") or document["spec"]
    errors = list(_claim_problems(api, spec))
    if errors and not _has_namespace(api):
        errors = []  # reported by the request that creates the run
    if document["kind"] != "Workflow":
        return [], errors
    return errors, list(_gpu_warnings(api, document, spec))


def _claim_problems(api: KubernetesWorkflows, spec: Document) -> Iterator[Problem]:
    """Yield the claims that no pod can mount: it would be Pending until the time limit of its step."""
    sources = [volume.get("persistentVolumeClaim") or {} for volume in spec.get("volumes") or []]
    for name in dict.fromkeys(str(source.get("claimName") or "") for source in sources):
        if not name or "{{" in name:
            continue
        try:
            claim = api.find("v1", "persistentvolumeclaims", name)
        except ApiFailure as failure:
            if failure.status in (0, 401):  # the cluster, not a permission
                raise
            continue
        fix = f"create it, or use another: kubectl get pvc --namespace {api.namespace}"
        if claim is None:
            yield Problem(f"volume claim {name} not found in namespace {api.namespace}", fix=fix)
        elif (claim.get("status") or {}).get("phase") == "Lost":
            yield Problem(f"volume claim {name} has lost its volume", fix=fix)


def _has_namespace(api: KubernetesWorkflows) -> bool:
    try:
        return api.find("v1", "namespaces", api.namespace, cluster_wide=True) is not None
    except ApiFailure:
        return True


def _gpu_warnings(api: KubernetesWorkflows, document: Document, spec: Document) -> Iterator[Problem]:
    """Yield a warning if all GPUs that a step of the run can use are taken."""
    request = gpu_holders.find_request(spec)
    if request is None:
        return
    try:
        nodes = (api.find("v1", "nodes", cluster_wide=True) or {}).get("items") or []
        pods = (api.find("v1", "pods", cluster_wide=True) or {}).get("items") or []
    except ApiFailure:
        return
    service = str((document["metadata"].get("labels") or {}).get(WORKSPACE_LABEL) or "")
    warning = gpu_holders.find_shortage(request, nodes, pods, api.namespace, service)
    if warning:
        yield warning
