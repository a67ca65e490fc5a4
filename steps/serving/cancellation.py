"""Ends a request before its response is complete: first as if its client hung up, then by cancelling its task."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_SECONDS = 1.0
"""Time for a server to cancel its own work. If vLLM's handler is cancelled from outside before it has read the
disconnect, the task that it waits for (``with_cancellation``) generates the answer to its end."""


async def call_until(app: ASGIApp, scope: Scope, receive: Receive, send: Send, end: asyncio.Future[Any]) -> bool:
    """Call an application and end it when a future is done; return True if it has begun a response.

    It reads a disconnect then, and is cancelled after ``GRACE_SECONDS``. What it sends after the end is dropped.
    """
    response = _Response(send, end)

    async def receive_or_end() -> Message:
        message = asyncio.ensure_future(receive())
        try:
            await asyncio.wait([message, end], return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                return message.result()
            await response.wait_until_idle()
            return {"type": "http.disconnect"}
        finally:
            message.cancel()

    async def answer() -> None:
        await app(scope, receive_or_end, response.send)

    request = asyncio.ensure_future(answer())
    try:
        await asyncio.wait([request, end], return_when=asyncio.FIRST_COMPLETED)
        if not request.done():
            await asyncio.wait([request], timeout=GRACE_SECONDS)
        if not request.done() and not response.is_complete:  # else the server completes its own work
            request.cancel()
        await asyncio.wait([request])
        if not request.cancelled():
            request.result()
    finally:
        request.cancel()
    return response.is_started


class _Response:
    """Sends the messages of a response until a future is done, and drops the others.

    Then a message that waits for its client is dropped too. If Starlette's ``StreamingResponse`` is cancelled while it
    sends, its generator is not closed, and vLLM generates the answer until the garbage collector finds the generator.
    """

    def __init__(self, send: Send, end: asyncio.Future[Any]) -> None:
        self.is_started = self.is_complete = False
        self._send = send
        self._end = end
        self._sender: asyncio.Task[Any] | None = None
        """The task that is sending a message."""
        self._is_dropped = False
        end.add_done_callback(self._drop_message)

    async def send(self, message: Message) -> None:
        if self._end.done():
            return
        self.is_started = True
        self._sender = sender = asyncio.current_task()
        try:
            await self._send(message)
        except asyncio.CancelledError:
            if not self._is_dropped or (sender and sender.uncancel()):
                raise
        else:
            self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        finally:
            self._sender = None

    async def wait_until_idle(self) -> None:
        """Wait until the application is not sending, so that a cancellation reaches what generates the response."""
        while self._sender:
            await asyncio.sleep(0)

    def _drop_message(self, _: asyncio.Future[Any]) -> None:
        if self._sender:
            self._is_dropped = True
            self._sender.cancel()
