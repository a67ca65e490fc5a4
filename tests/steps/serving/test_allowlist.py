"""No spelling of a request reaches a management route of the real transformers server; the allowed ones pass."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from app_server import listen
from fastapi import FastAPI
from request_variants import NUM_VARIANTS, ROOT_PATHS, send, variants
from tiny_model import save_model

from steps.serving.allowlist import ALLOWED
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager


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
    assert len(management) >= 30, len(management)
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
