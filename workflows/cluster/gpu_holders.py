"""The pods that hold the GPUs which a run waits for, above all the servers that it replaces. Pure: reads documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.provision.node_providers import RUN_LABEL
from steps.rollout import service_group, service_workload
from steps.rollout.service_manifests import TRACK_LABEL
from steps.rollout.service_release import SERVICE_LABEL, STABLE
from workflows.errors import Problem

Document = Mapping[str, Any]
MAX_NAMES = 3


@dataclass(frozen=True)
class GpuRequest:
    """The GPUs that a step requests, and the nodes that it can run on."""

    step: str
    resource: str
    count: int
    selector: Mapping[str, str]
    terms: Sequence[Document]
    """Terms of the required node affinity; a node must match one."""


def find_request(spec: Document) -> GpuRequest | None:
    """Return the largest request of GPUs; None if no step has one, or if the run creates its nodes."""
    requests = [request for template in spec.get("templates") or [] if (request := _request(template))]
    if any(RUN_LABEL in request.selector for request in requests):
        return None
    return max(requests, key=lambda request: request.count, default=None)


def find_shortage(
    request: GpuRequest, nodes: Iterable[Document], pods: Iterable[Document], namespace: str, service: str
) -> Problem | None:
    """Return a warning if no node has the requested GPUs free, with the pods that hold them.

    Args:
        request: from ``find_request``.
        nodes: all nodes.
        pods: all pods.
        namespace: namespace of the run.
        service: name of the Workspace, and so of the service whose servers the run replaces.
    """
    suitable = {str(node["metadata"]["name"]): _suitable_gpus(node, request) for node in nodes}
    suitable = {node: count for node, count in suitable.items() if count}
    held: dict[str, int] = defaultdict(int)
    own: dict[tuple[str, str], None] = {}
    others: list[str] = []
    for pod in pods:
        node, count = str((pod.get("spec") or {}).get("nodeName") or ""), _requested(pod, request.resource)
        if node not in suitable or not count or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        held[node] += count
        metadata = pod["metadata"]
        is_own = bool(service) and metadata.get("namespace") == namespace
        labels = metadata.get("labels") or {}
        if is_own and labels.get(SERVICE_LABEL) == service:
            own[_owner(labels, service)] = None
        else:
            others.append(f"{metadata.get('namespace')}/{metadata['name']}")
    if not suitable or any(count - held[node] >= request.count for node, count in suitable.items()):
        return None
    total = f"{sum(suitable.values())} {request.resource}"
    message = f"{request.step} waits for {request.count} of {total}, which are in use"
    if own:
        objects = " ".join(f"{noun.lower()}/{name}" for noun, name in own)
        fix = (
            f"free it (nothing is served until the rollout): kubectl scale {objects} --replicas=0"
            f" --namespace {namespace}; or add a GPU node"
        )
        listed = " and ".join(f"{noun} {name}" for noun, name in own)
        return Problem(f"{message} by {listed}, which this run replaces only at its end", fix=fix)
    rest = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
    listed = ", ".join(others[:MAX_NAMES]) + rest
    return Problem(f"{message} by {listed}", fix="wait until they end, or add a GPU node")


def _owner(labels: Mapping[str, str], service: str) -> tuple[str, str]:
    """Return kind and name of the object that has a pod of the service."""
    group = service_group.kind_of_pod(labels)
    return service_workload.NOUNS[group], service_workload.name(service, labels.get(TRACK_LABEL, STABLE), group)


def _request(template: Document) -> GpuRequest | None:
    limits = ((template.get("container") or {}).get("resources") or {}).get("limits") or {}
    gpus = {name: _int(value) for name, value in limits.items() if "/" in name and ("gpu" in name or "/mig-" in name)}
    affinity = ((template.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    for resource, count in gpus.items():
        if count:
            terms = tuple((affinity or {}).get("nodeSelectorTerms") or ())
            return GpuRequest(template["name"], resource, count, template.get("nodeSelector") or {}, terms)
    return None


def _suitable_gpus(node: Document, request: GpuRequest) -> int:
    """Return the GPUs of a node, if a pod of the request fits on it when it is empty; else 0."""
    labels = node["metadata"].get("labels") or {}
    count = _int(((node.get("status") or {}).get("allocatable") or {}).get(request.resource))
    if count < request.count or any(labels.get(key) != value for key, value in request.selector.items()):
        return 0
    if request.terms and not any(_matches(labels, term) for term in request.terms):
        return 0
    return count


def _matches(labels: Mapping[str, str], term: Document) -> bool:
    """Return True if labels match a term; operators that argotune does not write match always."""
    return all(
        expression.get("operator") != "In" or labels.get(expression["key"]) in (expression.get("values") or [])
        for expression in term.get("matchExpressions") or []
    )


def _requested(pod: Document, resource: str) -> int:
    containers = (pod.get("spec") or {}).get("containers") or []
    return sum(_int(((item.get("resources") or {}).get("limits") or {}).get(resource)) for item in containers)


def _int(value: Any) -> int:
    text = str(value or "0")
    return int(text) if text.isdigit() else 0
