"""Every request of the local rollout to its server fails once in every way, and the step is killed after each.

The server is never restarted, and in the end it serves the desired adapter.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adapter_server
import pytest
from fault_table import check, sweep_names
from faults import SILENT_SECONDS, Faults, kill_proof
from faulty_proxy import FaultyProxy
from rollout_sample import nap, write_weights

from steps.models.adapter import adapter_digest
from steps.rollout import rollout_local
from steps.rollout.settings import Settings
from steps.serving import server, server_command, serving_client
from steps.serving.desired_adapters import DesiredAdapter


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A work folder with the fake server; waits take no time."""
    choice = server_command.Choice("vllm", [sys.executable, adapter_server.__file__], "fake")
    monkeypatch.setattr(server_command, "choose_server", lambda: choice)
    retry = serving_client._retry
    monkeypatch.setattr(serving_client, "_retry", lambda call, who, timeout, _: retry(call, who, timeout, nap))
    monkeypatch.setattr(serving_client, "POLL_SECONDS", 0.01)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    yield tmp_path / "work"
    for name in (server.STARTING, server.RECORD):
        server.stop(tmp_path / "work" / "serve" / name, grace=0)


@pytest.fixture
def settings(tmp_path: Path, work: Path) -> Callable[[str], Settings]:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "note": name}))
        write_weights(folder)

    def make(name: str) -> Settings:
        adapters: list[Any] = [{"name": "tuned", "path": str(tmp_path / name)}]
        return Settings(
            work=work, preset="base", model=str(base), adapters=adapters, question="?", deadline_seconds=60
        )

    return make


def test_requests_to_a_server_that_loads_another_adapter(
    tmp_path: Path, work: Path, settings: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout_local.rollout(settings("one"))
    record = work / "serve" / server.RECORD
    started = server.read(record)
    names = itertools.cycle(["two", "one"])
    session = serving_client.session

    def attempt(kind: str, name: str) -> tuple[Faults, str]:
        adapter = next(names)
        requested = settings(adapter)
        with monkeypatch.context() as patch, FaultyProxy() as proxy:
            seconds = SILENT_SECONDS if kind == "timeout" else 0
            patch.setattr(serving_client, "session", lambda *key: proxy.client(session(*key), seconds))
            if kind:
                proxy.faults.fail(kind, 1, name)
            outcome = "succeeds on retry"
            if kind == "killed":
                assert not kill_proof(proxy.faults, lambda: rollout_local.rollout(requested)), "nothing was killed"
                outcome = "succeeds after a restart"
            result = rollout_local.rollout(requested)
            calls = list(proxy.faults.calls)
        version = DesiredAdapter("tuned", adapter_digest(tmp_path / adapter)).version
        assert result.answer == f"I am {version}."
        running = server.read(record)
        assert running and started and running.pid == started.pid, "the server was restarted"
        assert [DesiredAdapter(**one).version for one in running.adapters] == [version]
        assert [folder.name for folder in (work / "serve" / "adapters").iterdir()] == [version]
        assert not (work / "serve" / server.STARTING).exists()
        proxy.faults.calls[:] = calls
        return proxy.faults, f"{outcome}; the server keeps running with the desired adapter"

    rows = sweep_names("rollout", attempt, sample=3)
    calls = {"GET /health", "GET /v1/models", "GET /adapters", "POST /v1/chat/completions"}
    assert {row.call for row in rows} == calls
    check("local rollout: requests to the server", rows, sample=True)
