"""No spelling of a request reaches a management route of the real transformers server; the allowed ones pass."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import string
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import uvicorn
from fastapi import FastAPI
from tiny_model import save_model

from steps.serving.allowlist import ALLOWED
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager

NUM_VARIANTS = 500
# Routes of transformers, of vLLM, and of FastAPI, none of which is for clients.
MANAGEMENT = (
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/adapters/tuned", "/reset", "/load_model"),
    *("/v1/responses", "/v1/audio/transcriptions", "/docs", "/openapi.json", "/redoc", "/tokenize", "/invocations"),
    *("/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache", "/server_info", "/start_profile", "/scale"),
)
METHODS = (*["POST"] * 12, "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "TRACE", "post", "CONNECT")
ROOT_PATHS = ("", "/api", "/v1")
Transform = Callable[[str, random.Random], str]
PATHS: tuple[Transform, ...] = (
    lambda path, _: path,
    lambda path, r: path + r.choice(["%0a", "%0d%0a", "%00", "%20", "%09", "%0b", "%c2%85", "%e2%80%a8"]),
    lambda path, r: path + r.choice(["/", "//", "/.", "/..", "/%2e", ";a=b", "%3b", "%23", "%3f", "?a=b", "?%0a"]),
    lambda path, r: r.choice(["/", "/.", "/x/..", "/%2e", "/chat/..", "/health/..", "%2f", "/%2f", "//"]) + path,
    lambda path, r: r.choice(ROOT_PATHS[1:]) * r.randint(1, 2) + path,
    lambda path, r: r.choice(list(ALLOWED)) + r.choice(["", "%0a", "?", "%3f", ";", "/.."]) + path,
    lambda path, _: path[0] + path[1:].replace("/", "%2f"),
    lambda path, _: path[0] + path[1:].replace("/", "%252F"),
    lambda path, _: path[0] + path[1:].replace("/", r"\\"[0]),
    lambda path, r: path.replace("/", "/" * r.randint(2, 4)),
    lambda path, r: re.sub("[a-z]", lambda m: m[0].upper() if r.random() < 0.5 else m[0], path),
    lambda path, r: re.sub("[a-z_]", lambda m: f"%{ord(m[0]):02x}" if r.random() < 0.5 else m[0], path),
    lambda path, r: r.choice(["http://127.0.0.1", "https://example.com:443", "http://u:p@h", "file://"]) + path,
)
HEADERS = (
    *("X-HTTP-Method-Override: POST", "X-Original-URL: {}", "X-Rewrite-URL: {}", "X-Forwarded-Prefix: {}"),
    *("X-Forwarded-Path: {}", "X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "Host: localhost"),
    *("Authorization: Bearer x", "Content-Type: text/plain", "Connection: Upgrade\r\nUpgrade: websocket"),
)


@dataclass
class Recorder:
    """An ASGI application in front of another one that records the routes that were reached."""

    app: Any
    reached: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        finally:
            if route := scope.get("route"):
                self.reached.append((scope["method"], route.path))


def variants(seed: int, num: int) -> list[bytes]:
    """Requests for a management route, each in another spelling."""
    r = random.Random(seed)
    requests_: dict[bytes, None] = {}
    while len(requests_) < num:
        target = path = r.choice(r.choice([MANAGEMENT, MANAGEMENT[:6]]))
        for transform in r.choices(PATHS, k=r.choice([1, 1, 2, 3])):
            path = transform(path, r)
        body = json.dumps({"lora_name": "evil", "lora_path": "/nowhere", "padding": r.choice(string.ascii_letters)})
        lines = [f"{r.choice(METHODS)} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
        lines += [header.replace("{}", target) for header in r.sample(HEADERS, r.randint(0, 2))]
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
        requests_["\r\n".join([*lines, "", body]).encode()] = None
    return list(requests_)


@contextmanager
def listen(app: Any, **options: Any) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def send(port: int, request: bytes) -> int:
    """Send raw bytes and return the status of the response; 0 if the server only closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        head = connection.recv(4096)
    return int(head.split()[1]) if head else 0


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return model_manager("tiny", save_model(tmp_path_factory.mktemp("tiny")), "float32")


@pytest.fixture(scope="module")
def server(models: Any) -> Recorder:
    return Recorder(build_app(models))


@pytest.mark.parametrize("root_path", ROOT_PATHS)
def test_no_variant_reaches_a_management_route(server: Recorder, models: Any, root_path: str) -> None:
    server.reached.clear()
    requests_ = variants(13, NUM_VARIANTS)
    with listen(ServingMiddleware(server), root_path=root_path) as port:
        responses = {request: send(port, request) for request in requests_}
    assert not [route for route in server.reached if route[0] not in ALLOWED.get(route[1], ())]
    accepted = {request.split()[0] for request, status in responses.items() if 0 < status < 400}
    assert accepted <= {b"GET"}, "only the state is readable"
    assert list(models.loaded) == ["tiny"]


def test_the_variants_do_reach_the_routes_of_a_server_without_the_allowlist(server: Recorder) -> None:
    """Without this the test above could pass because no variant is a valid request."""
    server.reached.clear()
    with listen(server, root_path="/api") as port:
        for request in variants(13, NUM_VARIANTS):
            send(port, request)
    management = [path for method, path in server.reached if method not in ALLOWED.get(path, ())]
    assert len(management) >= 40, len(management)
    assert {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/reset", "/load_model"} <= set(management)


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_allowed_requests_pass(server: Recorder, root_path: str) -> None:
    with listen(ServingMiddleware(server), root_path=root_path) as port:
        address = f"http://127.0.0.1:{port}"
        assert requests.get(f"{address}/health").status_code == 200
        assert requests.get(f"{address}/ready").status_code == 200
        assert requests.get(f"{address}/v1/models").json()["data"][0]["id"] == "tiny"
        assert requests.get(f"{address}/adapters").json()["versions"] == {}
        body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        assert requests.post(f"{address}/v1/chat/completions?a=b", json=body).status_code == 200
        assert requests.post(f"{address}/chat", json={"prompt": "x", "model": "tiny", "max_tokens": 1}).json()["model"]
        missing = requests.post(f"{address}/v1/load_lora_adapter", json={})
        assert missing.status_code == 404
        assert missing.json()["error"]["message"].startswith("not found; available paths: /chat, ")
        not_allowed = requests.delete(f"{address}/adapters")
        assert (not_allowed.status_code, not_allowed.headers["allow"]) == (405, "GET")


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send_message(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the request was forwarded")

    for path in ("/v1/realtime", "/chat", "/v1/load_lora_adapter"):
        asyncio.run(ServingMiddleware(never)({"type": "websocket", "path": path}, receive, send_message))
    assert [message["type"] for message in sent] == ["websocket.close"] * 3


def test_the_root_path_of_a_proxy_does_not_hide_a_route(tmp_path: Path) -> None:
    """FastAPI sets its root path in the scope before the middleware runs; Starlette routes what is left."""
    reached: list[str] = []
    app = FastAPI()
    app.root_path = "/api"  # as vLLM does

    @app.post("/v1/load_lora_adapter")
    def load() -> None:
        reached.append("load")

    @app.post("/v1/completions")
    def complete() -> dict[str, str]:
        reached.append("complete")
        return {}

    app.add_middleware(ServingMiddleware)
    with listen(app) as port:
        for prefix in ("", "/api", "/api/api", "//api", "/api/"):
            assert requests.post(f"http://127.0.0.1:{port}{prefix}/v1/load_lora_adapter", json={}).status_code == 404
        assert reached == []
        assert requests.post(f"http://127.0.0.1:{port}/api/v1/completions", json={}).status_code == 200
    assert reached == ["complete"]
