"""What stands in front of every server: ``/chat``, and adapters that can be changed while it runs."""

from __future__ import annotations

from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.chat_middleware import App, ChatMiddleware, Message, Receive, Send


class ServingMiddleware:
    """The middleware of ``vllm serve --middleware`` and of the transformers library's server."""

    def __init__(self, app: App) -> None:
        switch = AdapterReloader(app)
        self.app = ChatMiddleware(switch, switch.default_model)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request through both."""
        await self.app(scope, receive, send)
