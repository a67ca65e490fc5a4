"""ASGI middleware that changes the adapters of a running server without losing a request.

It watches the file of desired adapters (``desired_adapters``). An adapter with a new digest is fetched and checked,
loaded by the server's runtime LoRA API (``POST /v1/load_lora_adapter``, see vLLM's page on LoRA) under a name that
contains the digest, and asked for one token; then the public name is switched to it, and the old version is unloaded
after its last response. On failure the old adapter stays live and ``GET /adapters`` reports the problem.

Requests use the public name; responses contain the version (``tuned-3f2a9c01b2d4``), as OpenAI's API does with its
aliases. The module imports only the standard library and Starlette, because vLLM loads it in an environment without
our packages (``vllm serve --middleware``); pulling images needs more.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from steps.models import adapter_compat
from steps.runtime.imports import import_modules
from steps.runtime.json_text import parse_json
from steps.serving import desired_adapters
from steps.serving.adapter_fetch import fetch_adapter
from steps.serving.allowlist import ADAPTERS, COMPLETIONS, HEALTH, MODELS, READY
from steps.serving.asgi import call_app, replace_body, with_body
from steps.serving.cancellation import GRACE_SECONDS, call_until
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.inner_server import InnerServer

DEFAULT_VARIABLE = "ARGOTUNE_DEFAULT_MODEL"
"""Environment variable of a server with the model for requests without one, while there is no adapter."""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
POLL_SECONDS = 0.2
RETRY_SECONDS = 10.0
DRAIN_SECONDS = 60.0
"""Time for the requests of a replaced adapter; then they are cut, such as those of clients that stopped reading."""


NEXT_CHANGE_SECONDS = 2.0
"""The same time while the next change waits: vLLM has slots for the live adapters and one more."""
CUT_SECONDS = 2 * GRACE_SECONDS
"""Time for requests that are cut to end, before their adapter is unloaded."""


class Superseded(Exception):
    """The desired configuration has changed while it was being loaded."""


class _Request:
    """A request in progress."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.cut: asyncio.Future[None] = loop.create_future()
        """Done when the request must end."""
        self.done: asyncio.Future[None] = loop.create_future()


FETCH_MODULES = ("steps.models.adapter", "steps.oci.reference", "steps.oci.registry")
"""Modules of ``adapter_fetch``, which runs in a thread."""


class AdapterReloader:
    """Middleware that forwards requests to the current version of an adapter and keeps the versions up to date."""

    def __init__(
        self, app: ASGIApp, file: str | None = None, folder: str | None = None, images: str | None = None
    ) -> None:
        file = file or os.environ.get(desired_adapters.FILE_VARIABLE, "")
        self.app = app
        self.server = InnerServer(app)
        self.file = Path(file) if file else None
        self.folder = Path(folder or os.environ.get(desired_adapters.FOLDER_VARIABLE) or "/tmp/adapters")
        self.images = images or os.environ.get(desired_adapters.IMAGES_VARIABLE, "")
        self.base = os.environ.get(desired_adapters.BASE_VARIABLE, "")
        """Folder of the base model; if it is not known, adapters are not checked before they are loaded."""
        self.versions: dict[str, str] = {}
        """Version by public name; the first one answers requests that name no model."""
        self.loaded: set[str] = set()
        self.running: Counter[str] = Counter()
        """Number of requests in progress by version."""
        self.desired = self.reached = self.problem = ""
        """Digest of the desired configuration, digest of the live one, and the reason why they differ."""
        self._watcher: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        """Held while versions change, so that an old version is not unloaded when it becomes live again."""
        self._requests: defaultdict[str, set[_Request]] = defaultdict(set)
        self._draining: dict[str, asyncio.Task[None]] = {}

    def default_model(self) -> str:
        """Return the public name of the first adapter, or "" if there is none."""
        return next(iter(self.versions), "")

    def start(self) -> None:
        """Watch the file, unless that has begun."""
        if self.file and self._watcher is None:
            import_modules(FETCH_MODULES)
            self._watcher = asyncio.create_task(self._watch_file(self.file))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer requests for the state; forward all others."""
        endpoint = (scope["method"], scope["path"]) if scope["type"] == "http" else ("", "")
        if endpoint == ("GET", ADAPTERS):
            await JSONResponse(self._state())(scope, receive, send)
        elif endpoint == ("GET", READY):
            is_ready = (self.reached or not self.file) and await self._is_healthy()
            await JSONResponse(self._state(), 200 if is_ready else 503)(scope, receive, send)
        elif endpoint == ("GET", MODELS):
            response = self._rename_models(await call_app(self.app, scope, receive))
            await response(scope, receive, send)
        elif endpoint[0] == "POST":
            await self._forward(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _state(self) -> dict[str, Any]:
        return {
            "server": os.environ.get(desired_adapters.KIND_VARIABLE, ""),
            "wanted": self.desired,
            "reached": self.reached,
            "problem": self.problem,
            "versions": self.versions,
            "running": dict(self.running),
        }

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request with the version in place of the public name."""
        try:
            model, body = self._resolve(await Request(scope, receive).body())
        except ClientDisconnect:
            return
        request = _Request()
        self.running[model] += 1
        self._requests[model].add(request)
        try:
            await call_until(self.app, *replace_body(scope, receive, body), send, request.cut)
        finally:
            request.done.set_result(None)
            self._requests[model].discard(request)
            self.running[model] -= 1
            if not self.running[model]:  # clients choose the names: nothing is kept of one
                del self.running[model]
                self._requests.pop(model, None)

    def _resolve(self, body: bytes) -> tuple[str, bytes]:
        """Return the model that will answer, and the request with its name.

        A request without a model is answered by the first adapter, or the base model if there is none. vLLM alone
        would answer it with the base model.
        """
        try:
            request = parse_json(body)
            model = request.get("model") or self.default_model() or os.environ.get(DEFAULT_VARIABLE, "")
            version = self.versions.get(model, model)
        except (ValueError, TypeError, AttributeError):
            return "", body  # the server responds with the error
        is_same = not version or version == request.get("model")
        return str(version), body if is_same else json.dumps(request | {"model": version}).encode()

    def _rename_models(self, response: Response) -> Response:
        """Return the response to ``GET /v1/models`` with public names; ``root`` is the version."""
        names = {version: name for name, version in self.versions.items()}
        try:
            content = parse_json(bytes(response.body))
            cards = [card for card in content["data"] if card["id"] in names or card["id"] not in self.loaded]
            content["data"] = [
                card | {"id": names[card["id"]], "root": card["id"]} if card["id"] in names else card for card in cards
            ]
        except (ValueError, TypeError, KeyError):
            return response  # an error
        return with_body(response, response.raw_headers, json.dumps(content).encode())

    async def _watch_file(self, file: Path) -> None:
        """Reconcile the server with the file whenever the file changes, and retry after a failure."""
        retry_at, failed, last = 0.0, "", ""
        while True:
            digest = self._read_digest()
            if digest != last:  # a problem of the previous configuration does not concern this one
                self.desired, self.problem, last, failed = digest, "", digest, ""
            now = asyncio.get_running_loop().time()
            is_due = digest not in ("", self.reached) and (digest != failed or now >= retry_at)
            if is_due and await self._is_healthy():
                try:
                    await self._reconcile(file, digest)
                    self.reached, self.problem, failed = digest, "", ""
                except Superseded:
                    print("adapters are unchanged: the configuration has changed meanwhile", flush=True)
                except Exception as error:  # the live adapters stay, whatever the error is
                    self.problem = " ".join(str(error).split()) or type(error).__name__
                    print(f"adapters are unchanged: {self.problem}", flush=True)
                    retry_at, failed = now + RETRY_SECONDS, digest
            await asyncio.sleep(POLL_SECONDS)

    def _read_digest(self) -> str:
        text = _read_text(self.file) if self.file else ""
        return desired_adapters.config_digest(text) if text else ""

    async def _reconcile(self, file: Path, digest: str) -> None:
        """Load the desired adapters, switch all names at the same moment, and unload the other adapters.

        Raises:
            Superseded: The file has changed meanwhile: a withdrawn adapter must not become live.
            Exception: An adapter cannot be loaded.
        """
        desired = desired_adapters.parse(_read_text(file))
        earlier = set(self._draining) - {adapter.version for adapter in desired}
        await asyncio.gather(*(self._end_requests(version, NEXT_CHANGE_SECONDS) for version in earlier))
        try:
            async with self._lock:
                for adapter in desired:
                    if adapter.version not in self.loaded:
                        await self._fetch_and_load(adapter)
                if self._read_digest() != digest:
                    raise Superseded
                self.versions = {adapter.name: adapter.version for adapter in desired}
                self._cancel_drains()
        finally:
            await self._unload_others()

    def _cancel_drains(self) -> None:
        """Stop to drain versions that are live again, so that an old time limit does not cut their new requests."""
        for version in self._draining.keys() & set(self.versions.values()):
            self._draining.pop(version).cancel()

    async def _unload_others(self) -> None:
        """Unload versions that are not live: those in use in the background, after their last response."""
        for version in self.loaded - set(self.versions.values()) - set(self._draining):
            if not self.running[version]:
                await self._unload(version)
                continue
            self._draining[version] = asyncio.create_task(self._drain(version))

    async def _fetch_and_load(self, adapter: DesiredAdapter) -> None:
        try:
            await self._load(adapter, await asyncio.to_thread(self._fetch, adapter))
        except BaseException:
            shutil.rmtree(self.folder / adapter.version, ignore_errors=True)
            raise

    def _fetch(self, adapter: DesiredAdapter) -> Path:
        """Return the folder of an adapter that fits the base model.

        Raises:
            Exception: The adapter is not available or does not fit.
        """
        folder = fetch_adapter(adapter, self.folder, self.images)
        if self.base:
            served, kind = (
                adapter_compat.read(adapter.name, folder),
                os.environ.get(desired_adapters.KIND_VARIABLE, ""),
            )
            if problems := adapter_compat.problems(served, self.base, Path(self.base), kind, None):
                raise ValueError("; ".join(problems))
        return folder

    async def _load(self, adapter: DesiredAdapter, folder: Path) -> None:
        status, text = await self.server.post(LOAD, {"lora_name": adapter.version, "lora_path": str(folder)})
        # "already": loaded by an earlier instance of this middleware; the name contains the digest.
        if status != 200 and "already" not in text:
            raise RuntimeError(f"adapter {adapter.name}: the server cannot load it: {_error_message(text)}")
        probe = {"model": adapter.version, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        status, text = await self.server.post(COMPLETIONS, probe)
        if status != 200:
            await self.server.post(UNLOAD, {"lora_name": adapter.version})
            raise RuntimeError(f"adapter {adapter.name}: loaded, but does not answer: {_error_message(text)}")
        self.loaded.add(adapter.version)
        print(f"adapter {adapter.name}: loaded {adapter.version}", flush=True)

    async def _drain(self, version: str) -> None:
        """Unload a version after its last response."""
        try:
            await self._end_requests(version, DRAIN_SECONDS)
            await self._unload(version)
        except RuntimeError as error:  # the next change tries again
            print(str(error), flush=True)
        finally:
            if self._draining.get(version) is asyncio.current_task():
                del self._draining[version]

    async def _end_requests(self, version: str, seconds: float) -> None:
        """Wait for the responses of a version; cut those that take longer, unless the version is live again."""
        await self._wait_for_requests(version, seconds)
        if version in self.versions.values():
            return
        for request in self._requests.get(version, ()):
            if not request.cut.done():
                request.cut.set_result(None)
        await self._wait_for_requests(version, CUT_SECONDS)

    async def _wait_for_requests(self, version: str, seconds: float) -> None:
        """Wait until the current requests of a version have ended, or for some seconds."""
        if requests := [request.done for request in self._requests.get(version, ())]:
            await asyncio.wait(requests, timeout=seconds)

    async def _unload(self, version: str) -> None:
        async with self._lock:
            if version in self.versions.values():
                return  # live again
            status, text = await self.server.post(UNLOAD, {"lora_name": version})
            if status not in (200, 404):
                raise RuntimeError(f"cannot unload {version}: {_error_message(text)}")
            self.loaded.discard(version)
            self._requests.pop(version, None)
            shutil.rmtree(self.folder / version, ignore_errors=True)
            print(f"unloaded adapter {version}", flush=True)

    async def _is_healthy(self) -> bool:
        return (await self.server.get(HEALTH)).status_code == 200


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _error_message(text: str) -> str:
    """Return the message of an error in OpenAI's form (nested by current versions of vLLM, flat in older ones)."""
    try:
        content = parse_json(text)
        return str((content.get("error") or content)["message"])[:500]
    except (ValueError, TypeError, KeyError, AttributeError):
        return text[:500]
