"""A connection between two nodes of a server: it carries heartbeats, so that each notices when the other is lost.

A message is a line of JSON; an empty line is a heartbeat. A node that crashes closes the connection; one that loses
power or its network is silent.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from steps.runtime.json_text import parse_json

HEARTBEAT_SECONDS = 5.0
SILENT_SECONDS = 30.0
"""Time without a heartbeat after which the other node is lost."""
MAX_BYTES = 4096
"""Maximum length of a message; what connects and sends more is no node of the group."""


class GroupLink:
    """One end of a connection.

    Args:
        connection: Connected socket.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, connection: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        connection.setblocking(False)
        self._socket, self._clock = connection, clock
        self._buffer = b""
        self._sent, self._received = 0.0, clock()
        self.lost = ""
        """Reason why the other node is lost; empty while it is connected."""

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a failure appears as ``lost`` at the next poll."""
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def poll(self) -> list[dict[str, Any]]:
        """Send a heartbeat if it is due; return the messages received since the last call."""
        self._beat()
        try:
            data = self._socket.recv(MAX_BYTES)
        except (BlockingIOError, InterruptedError):
            if self._clock() - self._received > SILENT_SECONDS:
                self.lost = self.lost or f"no heartbeat for {SILENT_SECONDS:.0f} s"
            return []
        except OSError as error:
            self.lost = self.lost or (error.strerror or str(error))
            return []
        if not data:
            self.lost = self.lost or "closed the connection"
            return []
        self._received = self._clock()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        messages = [message for line in lines if line and (message := _parse(line)) is not None]
        if len(self._buffer) > MAX_BYTES or len(messages) < sum(map(bool, lines)):
            self.lost = self.lost or "sent something other than messages of a node"
        return messages

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _beat(self) -> None:
        now = self._clock()
        if now - self._sent >= HEARTBEAT_SECONDS:
            self._sent = now
            with contextlib.suppress(OSError):  # a full buffer, or a lost node, which recv reports
                self._socket.send(b"\n")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = parse_json(line.decode())
    except ValueError:
        return None
    return message if isinstance(message, dict) else None
