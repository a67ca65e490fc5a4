"""Adapters of a running server change without a request being lost: an ASGI middleware before vLLM or transformers.

It follows the file of wanted adapters (``wanted_adapters``). A new digest is fetched and checked, loaded by the
server's runtime LoRA API (``POST /v1/load_lora_adapter``, vLLM's features/lora page) under a name of its own, asked
for a first token, and only then does the public name mean it; the old one is unloaded once its last request is
answered. What fails leaves the old adapter in service and is told by ``GET /adapters``.

Requests go on under the public name; answers name the very version that gave them (``tuned-3f2a9c01b2d4``), as
OpenAI's API does for its aliases. The runtime LoRA API itself is closed to clients: who could call it could serve
anything. Standard library alone, since vLLM loads this in an environment of its own (``vllm serve --middleware``);
only pulling images needs more.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from steps.serving import desired_adapters
from steps.serving.desired_adapters import DesiredAdapter

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
STATE, READY, MODELS = "/adapters", "/ready", "/v1/models"
POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0
DRAIN_SECONDS = 600.0


class AdapterReloader:
    """Passes requests on to the version of an adapter that its name stands for, and keeps the versions current."""

    def __init__(
        self, app: App, file: str | None = None, folder: str | None = None, images: str | None = None
    ) -> None:
        given = file or os.environ.get(desired_adapters.FILE_VARIABLE, "")
        self.app = app
        self.file = Path(given) if given else None
        self.folder = Path(folder or os.environ.get(desired_adapters.FOLDER_VARIABLE) or "/tmp/adapters")
        self.images = images or os.environ.get(desired_adapters.IMAGES_VARIABLE, "")
        self.versions: dict[str, str] = {}
        """The version that each public name stands for: the first is that of requests that name no model."""
        self.loaded: set[str] = set()
        self.running: Counter[str] = Counter()
        """Requests that a model is answering."""
        self.wanted = self.reached = self.problem = ""
        self._task: asyncio.Task[None] | None = None
        self._context: Message = {}

    def default_model(self) -> str:
        """Public name of the first adapter; empty where there is none."""
        return next(iter(self.versions), "")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer what is asked of the switch itself; pass everything else on."""
        # Set by the framework around this middleware; its routes want it of every request.
        self._context = {key: scope[key] for key in ("app", "state") if key in scope}
        if self.file and self._task is None:
            self._task = asyncio.create_task(self._follow(self.file))
        path = scope.get("path", "").rstrip("/") if scope["type"] == "http" else ""
        if path == STATE and scope["method"] == "GET":  # vLLM's other methods here change adapters too (SageMaker's)
            await _answer(send, 200, self._state())
        elif path == READY:
            ready = (self.reached or not self.file) and await self._healthy()
            await _answer(send, 200 if ready else 503, self._state())
        elif path in (LOAD, UNLOAD, STATE) or path.startswith(f"{STATE}/"):
            await _refuse(send, 403, "adapters are changed by argotune's rollout alone")
        elif path == MODELS and scope["method"] == "GET":
            await self._list(scope, receive, send)
        elif path and scope["method"] == "POST":
            await self._pass(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _state(self) -> dict[str, Any]:
        return {
            "wanted": self.wanted,
            "reached": self.reached,
            "problem": self.problem,
            "versions": self.versions,
            "running": dict(self.running),
        }

    async def _pass(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on with the version in place of the public name."""
        body = await _read(receive)
        if body is None:
            return  # the client hung up
        model, body = self._resolve(body)
        lengths = [(b"content-length", str(len(body)).encode())]
        headers = [(key, value) for key, value in scope["headers"] if key.lower() not in _BODY_HEADERS]
        request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def take() -> Message:
            return request.pop() if request else await receive()

        self.running[model] += 1
        try:
            await self.app({**scope, "headers": headers + lengths}, take, send)
        finally:
            self.running[model] -= 1
            if not self.running[model]:
                del self.running[model]

    def _resolve(self, body: bytes) -> tuple[str, bytes]:
        """The model that will answer, and the request with its name."""
        try:
            request = json.loads(body)
            model = request["model"]
            version = self.versions.get(model, model)
        except (ValueError, TypeError, KeyError):
            return "", body  # the server tells what is wrong with it
        return str(version), body if version == model else json.dumps(request | {"model": version}).encode()

    async def _list(self, scope: Message, receive: Receive, send: Send) -> None:
        """``GET /v1/models`` with public names; ``root`` tells the version."""
        start, body = await self._ask(scope, receive)
        public = {version: name for name, version in self.versions.items()}
        try:
            listed = json.loads(body)
            cards = [card for card in listed["data"] if card["id"] in public or card["id"] not in self.loaded]
            listed["data"] = [
                card | {"id": public[card["id"]], "root": card["id"]} if card["id"] in public else card
                for card in cards
            ]
            body = json.dumps(listed).encode()
        except (ValueError, TypeError, KeyError):
            pass  # no list: an error, which the client shall see
        headers = [(key, value) for key, value in start.get("headers", []) if key.lower() not in _BODY_HEADERS]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})

    async def _follow(self, file: Path) -> None:
        """Bring the server to what the file says, whenever it says something else."""
        again, failed = 0.0, ""
        while True:
            text = _content(file)
            mark = desired_adapters.mark(text) if text else ""
            now = asyncio.get_running_loop().time()
            due = mark not in ("", self.reached) and (mark != failed or now >= again)
            if due and await self._healthy():
                self.wanted = mark
                try:
                    await self._reach(desired_adapters.read(text))
                    self.reached, self.problem, failed = mark, "", ""
                except Exception as error:  # whatever it is, the server goes on with what it serves
                    self.problem = " ".join(str(error).split()) or type(error).__name__
                    print(f"adapters stay as they are: {self.problem}", flush=True)
                    again, failed = now + RETRY_SECONDS, mark
            await asyncio.sleep(POLL_SECONDS)

    async def _reach(self, wanted: list[DesiredAdapter]) -> None:
        for adapter in wanted:
            if adapter.version not in self.loaded:
                await self._load(adapter, await asyncio.to_thread(fetch, adapter, self.folder, self.images))
        self.versions = {adapter.name: adapter.version for adapter in wanted}  # the switch, in one moment
        for version in self.loaded - set(self.versions.values()):
            await self._unload(version)

    async def _load(self, adapter: DesiredAdapter, folder: Path) -> None:
        status, text = await self._post(LOAD, {"lora_name": adapter.version, "lora_path": str(folder)})
        # A server that has it already has it by another start of this middleware: the name holds the digest.
        if status != 200 and "already" not in text:
            raise RuntimeError(f"adapter {adapter.name}: the server does not load it: {_message(text)}")
        status, text = await self._post(
            "/v1/completions", {"model": adapter.version, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        )
        if status != 200:
            await self._post(UNLOAD, {"lora_name": adapter.version})
            raise RuntimeError(f"adapter {adapter.name}: it is loaded, and does not answer: {_message(text)}")
        self.loaded.add(adapter.version)
        print(f"adapter {adapter.name}: {adapter.version} is loaded and answers", flush=True)

    async def _unload(self, version: str) -> None:
        end = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while self.running[version] > 0 and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(POLL_SECONDS / 4)
        status, text = await self._post(UNLOAD, {"lora_name": version})
        if status not in (200, 404):
            raise RuntimeError(f"{version} is not unloaded: {_message(text)}")
        self.loaded.discard(version)
        shutil.rmtree(self.folder / version, ignore_errors=True)
        print(f"adapter {version} is unloaded", flush=True)

    async def _healthy(self) -> bool:
        return (await self._call("GET", "/health", b""))[0] == 200

    async def _post(self, path: str, content: Any) -> tuple[int, str]:
        return await self._call("POST", path, json.dumps(content).encode())

    async def _call(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        """Ask the server that this stands in front of, without a network."""
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        headers.append((b"content-length", str(len(body)).encode()))
        if key := os.environ.get("VLLM_API_KEY"):
            headers.append((b"authorization", f"Bearer {key}".encode()))
        scope: Message = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
            "client": ("127.0.0.1", 0), "server": ("127.0.0.1", 0), **self._context,
        }  # fmt: skip
        request: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        async def receive() -> Message:
            return request.pop() if request else await never  # this client does not hang up

        try:
            start, answer = await self._ask(scope, receive)
        except Exception as error:
            return 0, str(error)
        return int(start.get("status", 0)), answer.decode(errors="replace")

    async def _ask(self, scope: Message, receive: Receive) -> tuple[Message, bytes]:
        start: Message = {}
        parts: list[bytes] = []

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        try:
            await self.app(scope, receive, give)
        except Exception:
            if not start:  # Starlette answers with 500 and raises too
                raise
        return start, b"".join(parts)


def fetch(adapter: DesiredAdapter, folder: Path, images: str = "") -> Path:
    """Folder that holds the very adapter of the digest: as it is, mounted in ``images``, or pulled below ``folder``.

    Raises:
        Exception: it can't be had (``steps.runtime.errors``), or is not what the digest says.
    """
    from steps.models.adapter import ADAPTER_FILES, adapter_digest

    if not adapter.image:
        if adapter_digest(Path(adapter.path)) != adapter.digest:
            raise RuntimeError(f"adapter {adapter.name}: {adapter.path} is not what {adapter.digest[:19]} says")
        return Path(adapter.path)
    mounted = Path(images) / adapter.place / "data"
    if images and all(os.access(mounted / name, os.R_OK) for name in ADAPTER_FILES):
        return mounted
    if images:
        # Files of its owner alone; or a node that mounts an empty folder, as some runtimes do.
        print(f"adapter {adapter.name}: not in the volume {mounted.parent}, so it is pulled", flush=True)
    from steps.oci import reference
    from steps.oci.registry import pull_adapter

    pulled = folder / adapter.version
    if not pulled.is_dir():  # made as a whole
        pull_adapter(reference.parse(f"{reference.parse(adapter.image).name}@{adapter.digest}"), pulled)
    return pulled


_BODY_HEADERS = (b"content-length", b"transfer-encoding")


def _content(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _message(text: str) -> str:
    """The sentence of an error in OpenAI's form (vLLM nests it, and did not before)."""
    try:
        content = json.loads(text)
        return str((content.get("error") or content)["message"])[:500]
    except (ValueError, TypeError, KeyError, AttributeError):
        return text[:500]


async def _read(receive: Receive) -> bytes | None:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _refuse(send: Send, status: int, why: str) -> None:
    await _answer(send, status, {"error": {"message": why, "type": "permission_error", "param": None, "code": status}})


async def _answer(send: Send, status: int, content: Any) -> None:
    body = json.dumps(content, ensure_ascii=False).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
