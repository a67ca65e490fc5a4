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

    It reads a disconnect then, and is cancelled after ``GRACE_SECONDS``. A response that it begins after the end is
    dropped: vLLM's is ``null``.
    """
    is_started = is_complete = False

    async def receive_or_end() -> Message:
        message = asyncio.ensure_future(receive())
        try:
            await asyncio.wait([message, end], return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            message.cancel()

    async def send_recorded(message: Message) -> None:
        nonlocal is_started, is_complete
        if end.done() and not is_started:
            return
        is_started = True
        await send(message)
        is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)

    async def answer() -> None:
        await app(scope, receive_or_end, send_recorded)

    request = asyncio.ensure_future(answer())
    try:
        await asyncio.wait([request, end], return_when=asyncio.FIRST_COMPLETED)
        if not request.done():
            await asyncio.wait([request], timeout=GRACE_SECONDS)
        if not request.done() and not is_complete:  # else the server completes its own work
            request.cancel()
        await asyncio.wait([request])
        if not request.cancelled():
            request.result()
    finally:
        request.cancel()
    return is_started
