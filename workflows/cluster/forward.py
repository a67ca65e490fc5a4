"""Connections from this machine to a served model, through the API server (``kubectl port-forward``)."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from steps.kubernetes.client import PODS, Kind, KubernetesClient
from steps.runtime.errors import BadInput, StepError
from steps.serving.drain import PORT

SERVICES = Kind("v1", "services")
HOST = "127.0.0.1"
CHUNK = 65_536
Open = Callable[[], socket.socket]
"""Opens a connection to the server's port in a pod."""


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


@contextlib.contextmanager
def listen(open_remote: Open, port: int = 0) -> Iterator[str]:
    """Accept connections on a local port and connect each to the remote; yield the address.

    Raises:
        BadInput: the port is in use.
    """
    try:
        server = socket.create_server((HOST, port))
    except OSError as error:
        raise BadInput(f"port {port} cannot be used: {error.strerror}", "pass another --port") from None
    with server:
        threading.Thread(target=_accept, args=(server, open_remote), daemon=True).start()
        yield f"http://{HOST}:{server.getsockname()[1]}"
        # Wakes up the thread that accepts.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _accept(server: socket.socket, open_remote: Open) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_connect, args=(client, open_remote), daemon=True).start()


def _connect(client: socket.socket, open_remote: Open) -> None:
    """Copy both directions of a connection until one side closes it."""
    with client:
        try:
            remote = open_remote()
        except (StepError, OSError):
            return  # the client sees a closed connection, and retries
        try:
            sending = threading.Thread(target=_copy, args=(client, remote), daemon=True)
            sending.start()
            _copy(remote, client)
        finally:
            remote.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


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
