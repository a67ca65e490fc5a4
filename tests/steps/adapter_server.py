"""A small OpenAI-compatible server with vLLM's runtime LoRA API, behind the front that stands before every server."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import uvicorn

from steps.serving import adapter_reloader
from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.middleware import ServingMiddleware

Message = dict[str, Any]


class SmallServer:
    """An ASGI application as vLLM is one: models, completions, loading and unloading of adapters.

    A model answers with its name. What it refuses, and what it holds up, a test sets.
    """

    def __init__(self, base: str = "base") -> None:
        self.base = base
        self.adapters: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.mute: set[str] = set()
        """Models (or the beginning of their names) that answer with 500."""
        self.unloadable: set[str] = set()
        """Folders' names that are not loaded."""
        self.held: dict[str, asyncio.Event] = {}
        """Models whose answer waits."""
        self.healthy = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        status, content = await self._answer(scope["method"], scope["path"], json.loads(body or b"{}"))
        text = content if isinstance(content, str) else json.dumps(content)
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    async def _answer(self, method: str, path: str, body: Message) -> tuple[int, Any]:
        name = str(body.get("lora_name") or body.get("model") or "")
        if path == "/health":
            return (200 if self.healthy else 503), ""
        if path == "/v1/models":
            cards = [{"id": self.base}, *({"id": name, "parent": self.base} for name in self.adapters)]
            return 200, {"object": "list", "data": cards}
        self.calls.append((path, name))
        if path == "/v1/load_lora_adapter":
            if name in self.adapters:
                return 400, {"error": {"message": f"The lora adapter '{name}' has already been loaded."}}
            folder = Path(body["lora_path"])
            if not (folder / "adapter_config.json").is_file() or name.rpartition("-")[0] in self.unloadable:
                return 500, {"error": {"message": f"{name} does not fit"}}
            self.adapters[name] = str(folder)
            return 200, f"Success: LoRA adapter '{name}' added successfully."
        if path == "/v1/unload_lora_adapter":
            if self.adapters.pop(name, None) is None:
                return 404, {"error": {"message": f"The lora adapter '{name}' cannot be found."}}
            return 200, "Success"
        if name != self.base and name not in self.adapters:
            return 404, {"error": {"message": f"The model `{name}` does not exist."}}
        if any(name.startswith(mute) for mute in self.mute):
            return 500, {"error": {"message": "CUDA error: device-side assert triggered"}}
        if name in self.held:
            await self.held[name].wait()
        return 200, {"model": name, "choices": [{"text": name, "message": {"content": f"I am {name}."}}]}


class Running:
    """A server that listens, in a thread of its own."""

    def __init__(
        self, file: Path, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0), images: Path | None = None
    ) -> None:
        self.small = SmallServer()
        self.reloader = AdapterReloader(self.small, str(file), str(folder), str(images or ""))
        listening = socket.create_server(address)
        self.address = f"http://{address[0]}:{listening.getsockname()[1]}"
        middleware = ServingMiddleware(self.small, self.reloader)
        config = uvicorn.Config(middleware, log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True)
        self._thread.start()

    def _run(self, listening: socket.socket) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._server.serve(sockets=[listening]))
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    def hold(self, model: str) -> asyncio.Event:
        """Let a model's answers wait until ``let_go``."""
        self.small.held[model] = asyncio.Event()
        return self.small.held[model]

    def let_go(self, model: str) -> None:
        self.loop.call_soon_threadsafe(self.small.held.pop(model).set)

    def wait(self) -> None:
        self._thread.join()

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)


def main() -> None:
    """Serve as ``vllm serve`` would be asked to, in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    adapter_reloader.POLL_SECONDS = 0.01
    file = Path(os.environ["ARGOTUNE_ADAPTERS"])
    Running(file, file.with_name("pulled"), (given.host, given.port)).wait()


if __name__ == "__main__":
    main()
