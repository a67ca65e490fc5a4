"""Requests of an adapter that is withdrawn, live again, and withdrawn again, on a clock that skips every wait."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from adapter_server import FakeServer

from steps.models.adapter import adapter_digest
from steps.serving import adapter_reloader, desired_adapters, serving_client
from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.desired_adapters import DesiredAdapter


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time moves on to the next timer whenever nothing else can run."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(scenario)


class Service:
    """A server with one adapter, which is live or withdrawn."""

    def __init__(self, folder: Path) -> None:
        source = folder / "source"
        source.mkdir()
        (source / "adapter_config.json").write_text("{}")
        (source / "adapter_model.safetensors").write_text("1")
        self.adapter = DesiredAdapter("tuned", adapter_digest(source), path=str(source))
        self.file = folder / "adapters.json"
        self.server = FakeServer()
        self.reloader = AdapterReloader(self.server, str(self.file), str(folder / "pulled"))

    async def change(self, *adapters: DesiredAdapter) -> None:
        serving_client.write_adapters(self.file, adapters)
        digest = desired_adapters.config_digest(self.file.read_text())
        await self.reloader._reconcile(self.file, digest)

    async def request(self) -> asyncio.Task[int]:
        """Begin a request of the live adapter; its result is the HTTP status, 0 if it is cut."""
        body = json.dumps({"model": self.adapter.name, "messages": []}).encode()
        messages = [{"type": "http.request", "body": body}]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop() if messages else await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            sent.append(message)

        async def answer() -> int:
            scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
            await self.reloader(scope, receive, send)
            return int(sent[0]["status"]) if sent else 0

        begun = self.reloader.running[self.adapter.version] + 1
        task = asyncio.create_task(answer())
        while self.reloader.running[self.adapter.version] < begun:
            await asyncio.sleep(0)
        return task


@pytest.mark.parametrize("first_ends", [True, False])
def test_an_earlier_drain_does_not_cut_requests_of_an_adapter_that_was_live_again(
    tmp_path: Path, first_ends: bool
) -> None:
    async def scenario() -> None:
        service = Service(tmp_path)
        version = service.adapter.version
        await service.change(service.adapter)
        held = service.server.held[version] = asyncio.Event()
        first = await service.request()
        await service.change()
        await asyncio.sleep(10)
        await service.change(service.adapter)
        second = await service.request()
        await asyncio.sleep(30)
        start = asyncio.get_running_loop().time()
        await service.change()
        assert asyncio.get_running_loop().time() == start, "the change waits for no request"
        if first_ends:
            first.cancel()
        await asyncio.sleep(adapter_reloader.DRAIN_SECONDS - 1)
        assert not second.done(), "it has a minute, also after an earlier withdrawal"
        assert version in service.server.adapters
        await asyncio.sleep(1 + 2 * adapter_reloader.CUT_SECONDS)
        assert second.done() and version not in service.server.adapters
        assert not service.reloader._draining
        held.set()
        assert (await asyncio.gather(first, second, return_exceptions=True))[1] == 0

    run(scenario())


def test_an_adapter_that_stays_live_keeps_its_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        service = Service(tmp_path)
        await service.change(service.adapter)
        held = service.server.held[service.adapter.version] = asyncio.Event()
        requests = [await service.request()]
        await service.change()
        await service.change(service.adapter)
        requests.append(await service.request())
        await asyncio.sleep(10 * adapter_reloader.DRAIN_SECONDS)
        held.set()
        assert await asyncio.gather(*requests) == [200, 200]

    run(scenario())
