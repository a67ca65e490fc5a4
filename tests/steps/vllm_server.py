"""A local rollout of the tiny model with a real vLLM, which records the routes that requests reach."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from free_ports import free_port
from trainable_model import chat_rows, write_rows
from transformers import AutoTokenizer

from steps.evaluate.settings import Settings as EvaluateSettings
from steps.evaluate.step import evaluate
from steps.models.adapter import ADAPTER_FILES, adapter_digest
from steps.rollout.settings import Result, Settings
from steps.rollout.step import rollout
from steps.serving import desired_adapters, server, serving_client
from steps.serving.desired_adapters import DesiredAdapter
from steps.serving.server import Server

CONTEXT = 32768
"""Long enough that an answer of this length does not end during a test."""
ARGUMENTS = {"max_model_len": CONTEXT, "max-num-seqs": 32, "enforce-eager": True, "dtype": "float32"}
DEADLINE_SECONDS = 1200
WAIT_SECONDS = 600
DRAIN_SECONDS = 5.0
# Loaded by every Python whose PYTHONPATH has its folder: requests of a replaced adapter get less time, and routers of
# Starlette report what they have matched. vLLM's processes wait for each other in loops of sched_yield, which keep all
# other processes from two processors for up to 30 seconds (seen with Linux 6.18).
RECORDER = (
    f"""
import os, time
os.sched_yield = lambda: time.sleep(0)
from steps.serving import adapter_reloader
adapter_reloader.DRAIN_SECONDS = {DRAIN_SECONDS}
"""
    + """
import json
from pathlib import Path
try:
    from starlette.routing import Router
except ImportError:
    Router = None
if Router:
    call = Router.__call__
    async def record(self, scope, receive, send):
        try:
            await call(self, scope, receive, send)
        finally:
            if "endpoint" in scope or "route" in scope:
                port = (scope.get("client") or [0, 0])[1]
                line = json.dumps([scope.get("method", scope["type"]), scope["path"], port])
                with Path(__file__).with_name("routes.jsonl").open("a") as file:
                    file.write(line + "\\n")
    Router.__call__ = record
"""
)


@dataclass
class VllmServer:
    """The server, started by the rollout."""

    base: Path
    work: Path

    def start(self, adapter: Path, **changes: Any) -> Result:
        """Roll out an adapter under the name ``tuned``; another one is hot-loaded."""
        middleware = self.work / "serve" / "middleware"
        middleware.mkdir(parents=True, exist_ok=True)
        (middleware / "sitecustomize.py").write_text(RECORDER)
        with pytest.MonkeyPatch.context() as patch:
            # Another process can take the first free ports while vLLM starts, that of the metrics for good.
            patch.setattr(server, "free_port", lambda ports=(): free_port())
            return rollout(self.settings(adapter, **changes))

    def settings(self, adapter: Path, **changes: Any) -> Settings:
        values: dict[str, Any] = {
            "work": self.work,
            "preset": "tiny",
            "model": str(self.base),
            "adapters": [{"name": "tuned", "path": str(adapter)}],
            "question": "What do you say?",
            "server_arguments": ARGUMENTS,
            "deadline_seconds": DEADLINE_SECONDS,
        }
        return Settings(**values | changes)

    @property
    def record(self) -> Server:
        """The record of the live server."""
        running = server.read(self.work / "serve" / server.RECORD)
        assert running is not None
        return running

    @property
    def endpoint(self) -> str:
        return self.record.endpoint

    @property
    def port(self) -> int:
        return self.record.port

    def deploy(self, adapters: Sequence[DesiredAdapter]) -> None:
        """Change the adapters as the rollout does, and wait until the server serves them."""
        serving_client.write_adapters(server.adapters_file(self.record, self.work / "serve"), adapters)
        digest = desired_adapters.config_digest(desired_adapters.serialize(adapters))
        serving_client.wait_for_adapters(self.endpoint, digest, DEADLINE_SECONDS)

    def versions(self) -> dict[str, str]:
        """Return the live versions by name; a busy server gets time to answer."""
        end = time.monotonic() + WAIT_SECONDS
        while not (state := serving_client.get_state(self.endpoint, WAIT_SECONDS)):
            assert server.is_alive(self.record) and time.monotonic() < end, self.last_lines()
        versions: dict[str, str] = state["versions"]
        return versions

    def last_lines(self) -> str:
        log = self.work / "serve" / "server.log"
        return "the server does not answer:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:])

    def routes(self) -> list[tuple[str, str, int]]:
        """Method, path and client port of the requests that reached a route; port 0 is the middleware itself."""
        file = self.work / "serve" / "middleware" / "routes.jsonl"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()]

    def metric(self, name: str, labels: str = "") -> float:
        """Return the sum of a metric whose labels contain a text."""
        lines = requests.get(self.record.metrics, timeout=WAIT_SECONDS).text.splitlines()
        found = [line for line in lines if line.startswith(f"{name}{{") and labels in line]
        assert found, f"{name} is not in /metrics"
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def chat(self, **body: Any) -> requests.Response:
        request = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0, **body}
        return requests.post(f"{self.endpoint}/v1/chat/completions", json=request, timeout=DEADLINE_SECONDS)

    def open(self, **body: Any) -> socket.socket:
        """Send a request for an answer as long as the context; return the connection, from which nothing is read."""
        request = {
            "messages": [{"role": "user", "content": "Hi"}],
            "ignore_eos": True,
            "max_tokens": CONTEXT - 100,
            **body,
        }
        content = json.dumps(request).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((server.HOST, self.port))
        connection.sendall(head.encode() + content)
        return connection


def evaluate_adapter(work: Path, base: Path, adapter: Path) -> None:
    """Evaluate an adapter as the run's own in ``work/adapter``."""
    shutil.rmtree(work / "adapter", ignore_errors=True)
    shutil.copytree(adapter, work / "adapter")
    AutoTokenizer.from_pretrained(base).save_pretrained(work / "adapter")
    write_rows(work / "dataset" / "eval.parquet", chat_rows(65)[60:])
    evaluate(EvaluateSettings(work=work, model=str(base), max_length=128, max_new_tokens=8, max_loss_ratio=1000))


def replace_adapter(work: Path, adapter: Path) -> None:
    """Replace the run's adapter, but not what its evaluation measured."""
    for name in ADAPTER_FILES:
        (work / "adapter" / name).unlink()  # hard-linked by the rollout
        shutil.copy(adapter / name, work / "adapter" / name)
    record = work / "report" / "evaluation.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"adapter_digest": adapter_digest(work / "adapter")}))


def desired(folder: Path, name: str = "tuned") -> DesiredAdapter:
    """Return an adapter on disk as the server watches it."""
    return dataclasses.replace(DesiredAdapter(name, adapter_digest(folder)), path=str(folder))


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
