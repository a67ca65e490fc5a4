"""``GET /metrics`` on a separate port, which is open to Prometheus and to no client.

It needs no API key: a NetworkPolicy limits who reaches it, and no Service has the port. Standard library, Starlette
and uvicorn only, as vLLM loads it without our packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from http import HTTPStatus

from starlette.types import Receive, Scope, Send

from steps.serving.asgi import error_response
from steps.serving.inner_server import InnerServer
from steps.serving.metrics_address import ADDRESS_VARIABLE, PATH


class MetricsListener:
    """Listener for the metrics of a server, in the server's event loop.

    Args:
        server: The server behind the middleware.
    """

    def __init__(self, server: InnerServer) -> None:
        self._server = server
        self._address = os.environ.get(ADDRESS_VARIABLE, "")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen, unless it does already; without the port the server has no metrics, but answers its clients."""
        if self._address and self._task is None:
            self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        import uvicorn

        class Listener(uvicorn.Server):
            @contextlib.contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # signals are for the server of the clients

        host, _, port = self._address.rpartition(":")
        try:
            listening = socket.create_server((host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            print(f"no metrics: cannot listen on {self._address}: {error}", flush=True)
            return
        config = uvicorn.Config(self._answer, interface="asgi3", lifespan="off", access_log=False, log_config=None)
        with listening:
            await Listener(config).serve(sockets=[listening])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) == ("GET", PATH):
            response = await self._server.get(PATH)
        else:
            response = error_response(HTTPStatus.NOT_FOUND, f"not found; available: GET {PATH}")
        await response(scope, receive, send)
