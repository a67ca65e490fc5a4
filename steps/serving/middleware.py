"""The ASGI middleware in front of every server: allow-list, API keys, ``POST /chat``, limits, adapters, metrics."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.allowlist import RequestAllowlist
from steps.serving.api_key_check import ApiKeyCheck
from steps.serving.chat_middleware import ChatMiddleware
from steps.serving.disconnect import CancelOnDisconnect
from steps.serving.metrics import MetricsListener
from steps.serving.rate_limits import RateLimits
from steps.serving.request_limits import RequestLimits


class ServingMiddleware:
    """Middleware of ``vllm serve --middleware`` and of the transformers server."""

    def __init__(self, app: ASGIApp, reloader: AdapterReloader | None = None) -> None:
        reloader = reloader or AdapterReloader(app)
        limited = RequestLimits(RateLimits(CancelOnDisconnect(reloader)))
        self.app = RequestAllowlist(ApiKeyCheck(ChatMiddleware(limited, reloader.default_model)))
        self._reloader = reloader
        self._metrics = MetricsListener(reloader.server)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through all of them; the first call, at the server's start, starts the other tasks."""
        self._reloader.server.read_context(scope)
        self._reloader.start()
        self._metrics.start()
        await self.app(scope, receive, send)
