"""ASGI middleware that cancels a request for completions when its client hangs up.

Servers differ in which requests they cancel themselves: transformers ends streams only, and generates other answers to
their end while all requests behind them wait.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steps.serving.asgi import error_response
from steps.serving.request_texts import PARSED

GRACE_SECONDS = 1.0
"""Time for a server to cancel its own work. If vLLM's handler is cancelled from outside before it has read the
disconnect, the task that it waits for (``with_cancellation``) generates the answer to its end."""


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
        is_started = is_complete = False

        async def receive_shared() -> Message:
            if messages:
                return messages.pop()
            await asyncio.shield(hung_up)
            return {"type": "http.disconnect"}

        async def send_recorded(message: Message) -> None:
            nonlocal is_started, is_complete
            is_started = True
            await send(message)
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        request = asyncio.ensure_future(self._answer(scope, receive_shared, send_recorded))
        try:
            await asyncio.wait([request, hung_up], return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                await asyncio.wait([request], timeout=GRACE_SECONDS)
            if not request.done() and not is_complete:  # else the server completes its own work
                request.cancel()
            await asyncio.wait([request])
            if not request.cancelled():
                request.result()
            if not is_started and not hung_up.done():  # cut by the drain of a replaced adapter
                message = "the request was cut, because its adapter was replaced; send it again"
                response = error_response(HTTPStatus.SERVICE_UNAVAILABLE, message, headers={"retry-after": "1"})
                await response(scope, receive, send)
        finally:
            request.cancel()
            hung_up.cancel()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
