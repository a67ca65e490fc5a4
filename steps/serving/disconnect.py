"""ASGI middleware that cancels a request for completions when its client hangs up.

Servers differ in which requests they cancel themselves: transformers ends streams only, and generates other answers to
their end while all requests behind them wait.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steps.serving.asgi import error_response
from steps.serving.cancellation import call_until
from steps.serving.request_texts import PARSED


class CancelOnDisconnect:
    """Middleware behind ``RequestLimits``, which has read the body of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; cancel it if the client hangs up before the response is complete."""
        if PARSED not in scope:
            await self.app(scope, receive, send)
            return
        messages = [await receive()]
        hung_up = asyncio.ensure_future(_wait_for_disconnect(receive))

        async def receive_body() -> Message:
            if not messages:
                await asyncio.shield(hung_up)
                return {"type": "http.disconnect"}
            return messages.pop()

        try:
            is_started = await call_until(self.app, scope, receive_body, send, hung_up)
            if not is_started and not hung_up.done():  # cut by the drain of a replaced adapter
                message = "the request was cut, because its adapter was replaced; send it again"
                response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"retry-after": "1"})
                await response(scope, receive, send)
        finally:
            hung_up.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
