"""The server behind the middleware, called in the same process, as no client can."""

from __future__ import annotations

import asyncio
import json
import os
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Scope

from steps.serving.asgi import call_app, replace_body


class InnerServer:
    """Client of an ASGI application.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._context: Scope = {}

    def read_context(self, scope: Scope) -> None:
        """Keep what the framework around the middleware has set in a scope; its routes require it in all."""
        self._context = {key: scope[key] for key in ("app", "state") if key in scope}

    async def get(self, path: str) -> Response:
        """Return the response to a GET request; 500 with the error if the application fails."""
        return await self._call("GET", path)

    async def post(self, path: str, content: Any) -> tuple[int, str]:
        """Return status and text of the response to a POST request with JSON."""
        response = await self._call("POST", path, json.dumps(content).encode())
        return response.status_code, bytes(response.body).decode(errors="replace")

    async def _call(self, method: str, path: str, body: bytes = b"") -> Response:
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        if key := os.environ.get("VLLM_API_KEY"):
            headers.append((b"authorization", f"Bearer {key}".encode()))
        scope: Scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0), **self._context,
        }  # fmt: skip
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            return await never  # this client does not disconnect

        try:
            return await call_app(self._app, *replace_body(scope, receive, body))
        except Exception as error:
            return Response(str(error), HTTPStatus.INTERNAL_SERVER_ERROR)
