"""The metrics have a separate port, on which nothing else is reachable."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from adapter_server import FakeServer
from app_server import listen
from free_ports import free_port
from request_variants import NUM_VARIANTS, send, variants

from steps.serving import api_keys, metrics_address
from steps.serving.middleware import ServingMiddleware

COUNTER = "vllm:num_requests_running 0"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def ports(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Port of the clients, and port of the metrics; the server requires API keys."""
    (tmp_path / "alice").write_text("alice-0123456789")
    monkeypatch.setenv(api_keys.FOLDER_VARIABLE, str(tmp_path))
    port = free_port()
    monkeypatch.setenv(metrics_address.ADDRESS_VARIABLE, f"127.0.0.1:{port}")
    with listen(ServingMiddleware(server)) as clients:
        requests.get(f"http://127.0.0.1:{clients}/health", timeout=120)
        end = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.01)
        yield clients, port


def test_clients_do_not_read_metrics_and_prometheus_needs_no_key(ports: tuple[int, int]) -> None:
    clients, port = ports
    bearer = {"Authorization": "Bearer alice-0123456789"}
    assert requests.get(f"http://127.0.0.1:{clients}/metrics", headers=bearer, timeout=120).status_code == 404
    response = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=120)
    assert (response.status_code, response.text) == (200, COUNTER)


def test_nothing_but_metrics_is_reachable_on_their_port(ports: tuple[int, int], server: FakeServer) -> None:
    port = ports[1]
    for path in ("/", "/adapters", "/v1/models", "/v1/chat/completions", "/metrics/", "/metrics%0a", "//metrics"):
        assert requests.get(f"http://127.0.0.1:{port}{path}", timeout=120).status_code == 404
        assert requests.post(f"http://127.0.0.1:{port}{path}", json={}, timeout=120).status_code == 404
    responses = [send(port, request) for request in variants(13, NUM_VARIANTS)]
    assert not [status for status in responses if 0 < status < 400]
    assert server.calls == []


def test_a_port_in_use_costs_the_metrics_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv(metrics_address.ADDRESS_VARIABLE, address)
        with listen(ServingMiddleware(FakeServer())) as port:
            assert requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=120).status_code == 200
        assert f"no metrics: cannot listen on {address}: " in capfd.readouterr().out


def test_without_an_address_there_is_no_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(metrics_address.ADDRESS_VARIABLE, raising=False)
    with listen(ServingMiddleware(FakeServer())) as port:
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=120).status_code == 200
