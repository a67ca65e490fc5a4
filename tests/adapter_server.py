"""A fake OpenAI-compatible server with vLLM's runtime LoRA API, behind the serving middleware."""

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


class FakeServer:
    """An ASGI application with the API of vLLM: models, completions, loading and unloading of adapters.

    A model answers with its name. Tests set its failures and delays.
    """

    def __init__(self, base: str = "base") -> None:
        self.base = base
        self.adapters: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.mute: set[str] = set()
        """Prefixes of models that answer with 500."""
        self.unloadable: set[str] = set()
        """Names of adapters that fail to load."""
        self.held: dict[str, asyncio.Event] = {}
        """Models whose answers are delayed."""
        self.max_loras = 0
        """Models that answer at the same time, with one request of each; 0: any number."""
        self.running: list[str] = []
        self.cancelled: list[str] = []
        """Models whose answers were cancelled."""
        self.healthy = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        # As vLLM's handlers (``with_cancellation``): only a disconnect cancels the generation.
        answer = asyncio.ensure_future(self._answer(scope["method"], scope["path"], json.loads(body or b"{}")))
        disconnect = asyncio.ensure_future(receive())
        await asyncio.wait([answer, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
        disconnect.cancel()
        status, content = answer.result() if answer.done() else (200, None)
        text = content if isinstance(content, str) else json.dumps(content)
        headers = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    async def _answer(self, method: str, path: str, body: Message) -> tuple[int, Any]:
        name = str(body.get("lora_name") or body.get("model") or "")
        if path == "/health":
            return (200 if self.healthy else 503), ""
        if path == "/metrics":
            return 200, "vllm:num_requests_running 0"
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
        while self.max_loras and name not in self.running and len(self.running) >= self.max_loras:
            await asyncio.sleep(0.01)  # deferred
        self.running.append(name)
        try:
            if name in self.held:
                await self.held[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            self.running.remove(name)
        return 200, {"model": name, "choices": [{"text": name, "message": {"content": f"I am {name}."}}]}


class RunningServer:
    """A server that listens, in a separate thread."""

    def __init__(
        self, file: Path, folder: Path, address: tuple[str, int] = ("127.0.0.1", 0), images: Path | None = None
    ) -> None:
        self.server = FakeServer()
        self.reloader = AdapterReloader(self.server, str(file), str(folder), str(images or ""))
        listening = socket.create_server(address)
        self.address = f"http://{address[0]}:{listening.getsockname()[1]}"
        middleware = ServingMiddleware(self.server, self.reloader)
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
        """Delay a model's answers until ``release``."""
        self.server.held[model] = asyncio.Event()
        return self.server.held[model]

    def release(self, model: str) -> None:
        self.loop.call_soon_threadsafe(self.server.held.pop(model).set)

    def wait(self) -> None:
        self._thread.join()

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)


def main() -> None:
    """Serve with the flags of ``vllm serve``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    args, _ = parser.parse_known_args()
    adapter_reloader.POLL_SECONDS = 0.01
    file = Path(os.environ["ARGOTUNE_ADAPTERS"])
    RunningServer(file, file.with_name("pulled"), (args.host, args.port)).wait()


if __name__ == "__main__":
    main()
