"""An HTTP server that sends the bytes that a test gives it, also those that no server should send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Self

Respond = Callable[[str, str, Mapping[str, str]], bytes]
"""Returns the response to a method, a target and headers (in lower case)."""


class ScriptedServer:
    """Calls ``respond`` for each request, sends what it returns, and closes the connection."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._socket.accept()[0]
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            connection.settimeout(30)
            method, target, _ = stream.readline().decode("latin-1").split(" ", 2)
            headers = {}
            while line := stream.readline().strip():
                key, _, value = line.decode("latin-1").partition(":")
                headers[key.lower()] = value.strip()
            stream.read(int(headers.get("content-length", 0)))
            connection.sendall(self.respond(method, target, headers))
            connection.shutdown(socket.SHUT_WR)
            stream.read()  # Until the client has gone: a reset would discard what it has not read.


def response(
    body: bytes = b"", status: str = "200 OK", headers: Mapping[str, str] | None = None, *, head: bool = False
) -> bytes:
    """Return the bytes of a response; without its body for ``head``."""
    lines = [f"HTTP/1.1 {status}", *(f"{key}: {value}" for key, value in (headers or {}).items())]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + (b"" if head else body)
