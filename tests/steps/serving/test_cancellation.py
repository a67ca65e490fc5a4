"""Requests end in the way of vLLM's handlers: a disconnect cancels the generation, a cancelled handler does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from starlette.responses import StreamingResponse

from steps.serving import cancellation
from steps.serving.cancellation import call_until


class Vllm:
    """An application with a handler as vLLM's ``with_cancellation``, whose answer never ends."""

    def __init__(self, stream: bool = False, listens: bool = True) -> None:
        self.stream = stream
        self.listens = listens
        self.generating = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self.stream:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"data: 1", "more_body": True})
        tasks = [asyncio.create_task(self.generate())]
        if self.listens:
            tasks.append(asyncio.create_task(receive()))
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if not self.stream:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"null"})

    async def generate(self) -> None:
        self.generating.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()


async def never() -> Any:
    return await asyncio.get_running_loop().create_future()


async def end(app: Vllm, sent: list[Any]) -> bool:
    """Call the application, end it once it generates, and return True if it has begun a response."""

    async def send(message: Any) -> None:
        sent.append(message)

    cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    call = asyncio.create_task(call_until(app, {}, never, send, cut))
    await asyncio.wait_for(app.generating.wait(), 120)
    cut.set_result(None)
    return await asyncio.wait_for(call, 120)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_cut_ends_its_generation(stream: bool) -> None:
    async def run() -> None:
        app, sent = Vllm(stream), []
        assert await end(app, sent) is stream
        await asyncio.wait_for(app.cancelled.wait(), 120)
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"] * stream
        assert "null" not in str(sent), "not an answer for the client"

    asyncio.run(run())


def test_an_application_that_ignores_the_disconnect_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "GRACE_SECONDS", 0.01)

    async def run() -> None:
        sent: list[Any] = []
        assert await end(Vllm(listens=False), sent) is False
        assert sent == []

    asyncio.run(run())


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("ended", [0, 1])
def test_the_generator_of_a_client_that_does_not_read_is_closed(layers: int, ended: int) -> None:
    """Not by the garbage collector, which can take minutes; ``ended`` is the layer that ends the request."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stuck, closed, sent = asyncio.Event(), asyncio.Event(), 0

        async def generate() -> AsyncIterator[str]:
            try:
                while True:
                    await asyncio.sleep(0)
                    yield "token"
            finally:
                closed.set()

        async def send(message: Any) -> None:
            nonlocal sent
            sent += 1
            if sent > 10:
                stuck.set()
                await loop.create_future()

        cuts: list[asyncio.Future[None]] = [loop.create_future() for _ in range(layers)]
        app: Any = StreamingResponse(generate())
        for cut in cuts:
            app = partial(call_until, app, end=cut)
        kept = app  # the generator is reachable: nothing else can close it
        call = asyncio.create_task(app({"type": "http"}, never, send))
        await asyncio.wait_for(stuck.wait(), 120)
        cuts[ended % layers].set_result(None)
        await asyncio.wait_for(closed.wait(), 120)
        await asyncio.wait_for(call, 120)
        assert sent == 11 and kept

    asyncio.run(run())


def test_a_complete_response_is_unchanged() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"question"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"answer"})

    async def run() -> None:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"question"}

        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert await call_until(app, {}, receive, send, cut)
        assert sent[1]["body"] == b"answer"

    asyncio.run(run())


def test_an_error_of_the_application_is_raised() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    async def run() -> None:
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with pytest.raises(ValueError, match="broken"):
            await call_until(app, {}, never, never, cut)

    asyncio.run(run())
