"""Free ports of this machine for tests that run at the same time."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that the kernel chose; unlike the first free one of a range, two processes rarely get the same."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])
