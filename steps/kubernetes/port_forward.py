"""A local port that is connected to a port of a pod, through the API server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from steps.runtime.errors import BadInput, StepError

HOST = "127.0.0.1"
CHUNK = 65_536
Open = Callable[[], socket.socket]
"""Opens a connection to the server's port in a pod."""


@contextlib.contextmanager
def listen(open_remote: Open, port: int = 0) -> Iterator[str]:
    """Accept connections on a local port and connect each to the remote; yield the address.

    Raises:
        BadInput: the port is in use.
    """
    # Before threads start: concurrent imports can fail with ``_DeadlockError``.
    import kubernetes.stream  # noqa: F401

    try:
        server = socket.create_server((HOST, port))
    except OSError as error:
        raise BadInput(f"port {port} cannot be used: {error.strerror}", "pass another --port") from None
    with server:
        threading.Thread(target=_accept, args=(server, open_remote), daemon=True).start()
        try:
            yield f"http://{HOST}:{server.getsockname()[1]}"
        finally:
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
