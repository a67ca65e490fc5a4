"""The real transformers server ends generations without a client, and refuses prompts beyond the context."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from app_server import listen
from tiny_model import save_model

from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager

CONTEXT = 1024
NUM_TOKENS = 200


class GatedModel:
    """Counts the steps of the model, and holds it at a step until it is released."""

    def __init__(self, model: Any) -> None:
        self.num_steps = 0
        self.hold_at = 0
        self.released = threading.Event()
        model.register_forward_pre_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.num_steps += 1
        if self.num_steps == self.hold_at:
            self.released.wait(300)

    def hold(self, step: int) -> None:
        self.num_steps, self.hold_at = 0, step
        self.released.clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    models = model_manager("tiny", save_model(tmp_path_factory.mktemp("tiny")), "float32")
    model, _ = models.loaded["tiny"]
    model.generation_config.eos_token_id = None  # answers have the requested length
    return models


@pytest.fixture(scope="module")
def gate(models: Any) -> GatedModel:
    return GatedModel(models.loaded["tiny"][0])


@pytest.fixture(scope="module")
def reloader(models: Any) -> AdapterReloader:
    return AdapterReloader(build_app(models))


@pytest.fixture(scope="module")
def port(reloader: AdapterReloader) -> Iterator[int]:
    with listen(ServingMiddleware(reloader.app, reloader)) as port:
        yield port


def open_request(port: int, path: str = "/v1/completions", **options: Any) -> socket.socket:
    body = {"model": "tiny", "prompt": "x", "max_tokens": NUM_TOKENS} | options
    if "messages" in body:
        del body["prompt"]
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", port), timeout=300)
    connection.sendall(head.encode() + content)
    return connection


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def complete(port: int, **options: Any) -> requests.Response:
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1} | options
    return requests.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=300)


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/completions", {}),
        ("/v1/completions", {"stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stream": True}),
        ("/chat", {}),
    ],
    ids=["completion", "streamed completion", "chat", "streamed chat", "KAITO chat"],
)
def test_a_hung_up_client_ends_its_generation(
    port: int, reloader: AdapterReloader, gate: GatedModel, path: str, options: dict[str, Any]
) -> None:
    gate.hold(5)
    client = open_request(port, path, **options)
    wait_for(lambda: gate.num_steps == 5)
    client.close()
    wait_for(lambda: not reloader.running)
    gate.released.set()
    assert complete(port).status_code == 200, "the queue continues"
    assert gate.num_steps < 10


def test_a_client_that_hangs_up_in_the_queue_costs_no_step(
    port: int, reloader: AdapterReloader, gate: GatedModel
) -> None:
    gate.hold(2)
    first = open_request(port, max_tokens=3)
    wait_for(lambda: gate.num_steps == 2)
    waiting = [open_request(port, stream=stream) for stream in (False, True)]
    wait_for(lambda: reloader.running["tiny"] == 3)
    for client in waiting:
        client.close()
    wait_for(lambda: reloader.running["tiny"] == 1)
    gate.released.set()
    assert first.recv(4096).startswith(b"HTTP/1.1 200")
    assert complete(port).status_code == 200
    assert gate.num_steps == 3 + 1
    first.close()


def test_a_client_that_stays_gets_its_whole_answer(port: int, gate: GatedModel) -> None:
    gate.hold(0)
    assert complete(port, max_tokens=7).json()["usage"]["completion_tokens"] == 7
    events = complete(port, max_tokens=7, stream=True).text.split("\n\n")
    assert json.loads(events[-2][6:])["usage"]["completion_tokens"] == 7


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused_before_the_queue(port: int, gate: GatedModel, stream: bool) -> None:
    gate.hold(1)
    first = open_request(port, max_tokens=1)
    wait_for(lambda: gate.num_steps == 1)
    prompt = "x y " * CONTEXT
    response = complete(port, prompt=prompt, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (400, 400, "invalid_request_error")
    assert "leaves no room for an answer: the context has 1024 tokens" in error["message"]
    gate.released.set()
    first.close()


def test_an_answer_ends_at_the_context(port: int, gate: GatedModel, models: Any) -> None:
    gate.hold(0)
    tokenizer = models.loaded["tiny"][1]
    prompt = "x"
    while len(tokenizer(prompt)["input_ids"]) < CONTEXT - 3:
        prompt += "x" if len(tokenizer(prompt + "x")["input_ids"]) <= CONTEXT - 3 else "y"
    usage = complete(port, prompt=prompt, max_tokens=50).json()["usage"]
    assert usage["total_tokens"] == CONTEXT


def test_fields_that_the_library_ignores_are_honored_or_refused(port: int, gate: GatedModel) -> None:
    gate.hold(0)
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    body = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 3}
    assert requests.post(url, json=body, timeout=300).json()["usage"]["completion_tokens"] == 3
    for options, message in (({"n": 2}, "n must be 1"), ({"nonsense": 1}, "Unexpected fields")):
        response = requests.post(url, json=body | options, timeout=300)
        assert response.status_code in (400, 422) and message in response.json()["error"]["message"]
    config = json.dumps({"max_new_tokens": 10**9, "num_beams": 10**6})
    response = requests.post(url, json=body | {"generation_config": config}, timeout=300)
    assert (response.status_code, response.json()["error"]["code"]) == (400, 400)
