"""The requests that clients can send to a server: method and exact path, checked before routing.

vLLM and transformers also have routes that load adapters and models, reset the server or read its state, some of them
without a key. A deny-list of these misses routes and spellings (``%0a`` at the end, a root path), so everything that
is not listed here is rejected.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from steps.serving.asgi import error_response

CHAT, CHAT_COMPLETIONS, COMPLETIONS = "/chat", "/v1/chat/completions", "/v1/completions"
MODELS, HEALTH, READY, ADAPTERS = "/v1/models", "/health", "/ready", "/adapters"
ALLOWED = {
    CHAT: ("POST",),
    # OPTIONS: the preflight request of a browser (CORS).
    CHAT_COMPLETIONS: ("POST", "OPTIONS"),
    COMPLETIONS: ("POST", "OPTIONS"),
    MODELS: ("GET", "OPTIONS"),
    HEALTH: ("GET",),
    READY: ("GET",),
    # Read by the rollout and by the preStop hook; vLLM's other methods here change adapters (SageMaker's API).
    ADAPTERS: ("GET",),
}
"""Methods by path."""


class RequestAllowlist:
    """ASGI middleware that rejects every request but the allowed ones."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an allowed request on under exactly the path that was checked."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await WebSocketClose(code=1008)(scope, receive, send)  # policy violation; HTTP 403 to the client
            return
        path = _route_path(scope)
        methods = ALLOWED.get(path, ())
        if scope["method"] in methods:
            await self.app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send)
            return
        if methods:
            status, headers = HTTPStatus.METHOD_NOT_ALLOWED, {"allow": ", ".join(methods)}
            message = f"{path} accepts {headers['allow']} only"
        else:
            status, headers, message = HTTPStatus.NOT_FOUND, {}, f"not found; available paths: {', '.join(ALLOWED)}"
        await error_response(status, message, headers=headers)(scope, receive, send)


def _route_path(scope: Scope) -> str:
    """Return the path that Starlette would route: without the root path, where it begins with it."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path
