"""Parts that the ASGI middlewares of a server share, on top of Starlette, which vLLM and transformers both bring."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope

BODY_HEADERS = (b"content-length", b"transfer-encoding")


class ResponseCut(Exception):
    """An application has ended without a complete response."""


def error_response(
    status: HTTPStatus,
    message: str,
    kind: str = "invalid_request_error",
    headers: Mapping[str, str] | None = None,
    code: str = "",
) -> Response:
    """Return an error in the form that OpenAI's API and vLLM use; ``code`` is one of OpenAI's, or else the status."""
    # Texts of clients can have halves of surrogate pairs, which UTF-8 does not have.
    message = message.encode(errors="backslashreplace").decode()
    error = {"message": message, "type": kind, "param": None, "code": code or int(status)}
    return JSONResponse({"error": error}, status, dict(headers or {}))


def replace_body(scope: Scope, receive: Receive, body: bytes) -> tuple[Scope, Receive]:
    """Return the scope and the receive channel of the same request with another body."""
    headers = [(key, value) for key, value in scope["headers"] if key.lower() not in BODY_HEADERS]
    request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_body() -> Message:
        return request.pop() if request else await receive()  # afterwards the disconnect of the client

    return {**scope, "headers": [*headers, (b"content-length", b"%d" % len(body))]}, receive_body


async def call_app(app: ASGIApp, scope: Scope, receive: Receive) -> Response:
    """Return the complete response of an application.

    Raises:
        ResponseCut: It ended without a complete response.
    """
    start: dict[str, Any] = {}
    chunks: list[bytes] = []
    is_complete = False

    async def send(message: Message) -> None:
        nonlocal is_complete
        if message["type"] == "http.response.start":
            start.update(message)
        elif message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            is_complete = not message.get("more_body", False)

    try:
        await app(scope, receive, send)
    except Exception:
        if not start:  # Starlette responds with 500 and raises too
            raise
    if not is_complete:
        raise ResponseCut
    return with_body(Response(status_code=start["status"]), start.get("headers", []), b"".join(chunks))


def with_body(response: Response, headers: Any, body: bytes) -> Response:
    """Return a response of the same status with these headers and this body."""
    replaced = Response(body, response.status_code)
    replaced.raw_headers += [(key, value) for key, value in headers if key.lower() not in BODY_HEADERS]
    return replaced
