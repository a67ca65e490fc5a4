"""Connections from this machine to a served model, through the API server (``kubectl port-forward``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from steps.kubernetes.client import PODS, Kind, KubernetesClient
from steps.kubernetes.port_forward import listen
from steps.runtime.errors import BadInput
from steps.serving.drain import PORT

SERVICES = Kind("v1", "services")


@contextlib.contextmanager
def forward(cluster: KubernetesClient, service: str, port: int = 0) -> Iterator[str]:
    """Yield the address of a served model on this machine, until the block ends.

    Args:
        cluster: the cluster, with the namespace of the service.
        service: name of the service: that of its Workspace.
        port: local port; 0: any free one.

    Raises:
        BadInput: the service does not exist, no pod is ready, or the port is in use.
    """
    find_pod(cluster, service)
    with listen(lambda: cluster.open_port(*find_pod(cluster, service)), port) as address:
        yield address


def find_pod(cluster: KubernetesClient, service: str) -> tuple[str, int]:
    """Return a ready pod of a service, and the port of its server.

    Raises:
        BadInput: the service does not exist, or no pod is ready.
    """
    document = cluster.get(SERVICES, service)
    if document is None:
        fix = "use the name of a Workspace whose run has a rollout, and its namespace (-n)"
        raise BadInput(f"service {service} not found in namespace {cluster.namespace}", fix)
    selector = document["spec"].get("selector") or {}
    pods = cluster.list(PODS, labels=",".join(f"{key}={value}" for key, value in selector.items()))
    ready = [pod for pod in pods if _is_ready(pod)]
    if not ready:
        fix = f"kubectl describe pods --namespace {cluster.namespace} --selector argotune.dev/service={service}"
        raise BadInput(f"service {service} has no ready pod", fix)
    target = next((item.get("targetPort") for item in document["spec"].get("ports") or []), PORT)
    return ready[0]["metadata"]["name"], _port(ready[0], target)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    is_ready = any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)
    return is_ready and not pod["metadata"].get("deletionTimestamp")


def _port(pod: dict[str, Any], target: Any) -> int:
    """Return the number of a service's target port, which can be the name of a container's port."""
    if isinstance(target, int):
        return target
    ports = [port for container in pod["spec"].get("containers") or [] for port in container.get("ports") or []]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == target), PORT)
