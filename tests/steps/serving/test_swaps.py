"""Requests to the real transformers server while its adapter changes, and a client beside them that never reads."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from app_server import listen
from tiny_model import save_adapter, save_model

from steps.models.adapter import adapter_digest
from steps.serving import adapter_reloader, desired_adapters, serving_client
from steps.serving.adapter_reloader import AdapterReloader
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.middleware import ServingMiddleware
from steps.serving.serve_transformers import build_app, model_manager

NUM_SWAPS, NUM_CLIENTS = 4, 4
BODY = {"model": "tuned", "messages": [{"role": "user", "content": "x"}]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[DesiredAdapter]:
    folder = tmp_path_factory.mktemp("adapters")
    folders = [save_adapter(base, folder / str(seed), seed=seed) for seed in (2, 3)]
    return [DesiredAdapter("tuned", adapter_digest(path), path=str(path)) for path in folders]


@pytest.fixture
def server(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, int, Path]]:
    """Models, port and file of the desired adapters."""
    monkeypatch.setattr(adapter_reloader, "DRAIN_SECONDS", 10)
    models = model_manager("tiny", base, "float32")
    models.loaded["tiny"][0].generation_config.eos_token_id = None  # answers have the requested length
    file = tmp_path / "adapters.json"
    app = build_app(models)
    middleware = ServingMiddleware(app, AdapterReloader(app, str(file), str(tmp_path / "pulled")))
    with listen(middleware, send_buffer=4096) as port:
        yield models, port, file


def swap(port: int, file: Path, adapter: DesiredAdapter) -> float:
    """Change the adapter and return the seconds until it is live."""
    begin = time.monotonic()
    serving_client.write_adapters(file, [adapter])
    digest = desired_adapters.config_digest(desired_adapters.serialize([adapter]))
    serving_client.wait_for_adapters(f"http://127.0.0.1:{port}", digest, 120)
    return time.monotonic() - begin


def open_stuck_stream(port: int) -> socket.socket:
    """Request a long stream and read its first bytes only."""
    content = json.dumps({**BODY, "max_tokens": 900, "stream": True})
    headers = ["Host: x", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.settimeout(60)
    client.connect(("127.0.0.1", port))
    client.sendall("\r\n".join(["POST /v1/chat/completions HTTP/1.1", *headers, "", content]).encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def ask(port: int, number: int) -> str:
    """Return the model of an answer, every other one streamed; fail if it is not complete."""
    body = {**BODY, "max_tokens": 2, "stream": number % 2 == 1}
    response = requests.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    last = json.loads(response.text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["usage"]["completion_tokens"] == 2
    return str(last["model"])


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("num_requests", [80, pytest.param(1200, marks=pytest.mark.slow)])
def test_no_request_is_lost_while_adapters_change(
    server: tuple[Any, int, Path],
    adapters: list[DesiredAdapter],
    num_requests: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models, port, file = server
    swap(port, file, adapters[1])
    stuck = open_stuck_stream(port)
    ask(port, 0)  # the model generates one answer after another: that of the stuck client is complete now
    numbers, done = itertools.count(), threading.Semaphore(0)

    def send_requests() -> list[str]:
        answers = []
        while (number := next(numbers)) < num_requests:
            answers.append(ask(port, number))
            done.release()
        return answers

    with concurrent.futures.ThreadPoolExecutor(NUM_CLIENTS) as pool:
        clients = [pool.submit(send_requests) for _ in range(NUM_CLIENTS)]
        seconds = []
        for number in range(NUM_SWAPS):
            for _ in range(num_requests // (NUM_SWAPS + 1)):
                assert done.acquire(timeout=120)
            seconds.append(swap(port, file, adapters[number % 2]))
        answers = [answer for client in clients for answer in client.result()]
    assert len(answers) == num_requests
    assert set(answers) == {adapter.version for adapter in adapters}
    wait_for(lambda: set(models.loaded) == {"tiny", adapters[1].version})
    stuck.close()
    with capsys.disabled():
        print(f"\n{len(answers)} requests, 0 failed; swaps in s: {', '.join(f'{one:.2f}' for one in seconds)}")
