"""Every call fails once in every way, and the process is killed after each: the check ends well."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_table
import pytest
from faults import RETRY_AFTER, Faults, kill_proof, read_timeout
from hub_server import HubServer
from parquet_server import ParquetServer
from registry_fixture import Front, Registry, ref

from steps.models import hub_requests
from steps.oci import registry_client
from steps.oci.registry_client import RegistryClient
from steps.preflight import data_checks, model_checks, step
from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime.retry import RetryPolicy

pytestmark = pytest.mark.usefixtures("docker_config")
Run = Callable[[str, int], tuple[Faults, str]]


@pytest.fixture(autouse=True)
def on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The requested waits; no test sleeps."""
    waited: list[float] = []
    check_urls, check = data_checks.check_urls, model_checks.check
    monkeypatch.setattr(data_checks, "check_urls", functools.partial(check_urls, wait=waited.append))
    monkeypatch.setattr(model_checks, "check", functools.partial(check, wait=waited.append))
    return waited


def test_registry_faults(tmp_path: Path, open_registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "RETRY", RetryPolicy(max_attempts=2, initial_seconds=0.0, max_retry_after_seconds=0.0))

    def run(kind: str, call: int) -> tuple[Faults, str]:
        monkeypatch.setattr(registry_client, "TIMEOUT", (30.0, read_timeout(kind)))
        front = Front(open_registry.address)
        settings = Settings(work=tmp_path, image=f"{front.address}/flight/faults:1")
        try:
            outcome, _ = asked(front.faults, kind, call, settings)
        finally:
            front.close()
        # The registry discards abandoned uploads; nothing else was created.
        assert not RegistryClient(ref(f"{open_registry.address}/flight/faults:1")).manifest_digest("1")
        return front.faults, outcome

    fault_table.check("preflight", fault_table.sweep("preflight", run, sample=3), sample=True)


@pytest.fixture
def data(parquet_server: ParquetServer, as_parquet: Callable[..., bytes], chats: Callable[..., Any]) -> ParquetServer:
    parquet_server.put("/store.parquet", as_parquet(messages=chats(5)))
    parquet_server.redirect("/rows.parquet", "/store.parquet")
    return parquet_server


def test_data_faults(tmp_path: Path, data: ParquetServer, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(work=tmp_path, urls=[f"{data.url}/rows.parquet"], allow_private_hosts=True)

    def run(kind: str, call: int) -> tuple[Faults, str]:
        monkeypatch.setattr(data_checks, "TIMEOUT", (30.0, read_timeout(kind)))
        data.calls.calls.clear()
        waits.clear()
        outcome, found = asked(data.calls, kind, call, settings)
        assert any("rows.parquet is parquet, " in one for one in found)
        assert kind != "429" or RETRY_AFTER in waits
        return data.calls, outcome

    fault_table.check("preflight: data", fault_table.sweep("preflight", run, sample=3), sample=True)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    server = HubServer("someone/tiny", tmp_path / "model")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield server
    server.stop()


def test_model_faults(tmp_path: Path, hub: HubServer, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(work=tmp_path, model="someone/tiny")

    def run(kind: str, call: int) -> tuple[Faults, str]:
        monkeypatch.setattr(hub_requests, "TIMEOUT", (30.0, read_timeout(kind)))
        hub.faults.calls.clear()
        waits.clear()
        outcome, found = asked(hub.faults, kind, call, settings)
        assert "base model someone/tiny at main is readable" in found
        assert kind != "429" or RETRY_AFTER in waits
        return hub.faults, outcome

    fault_table.check("preflight: model", fault_table.sweep("preflight", run))


def asked(faults: Faults, kind: str, call: int, settings: Settings) -> tuple[str, list[str]]:
    """Check, again where it was killed; gives what was found too."""
    if kind:
        faults.fail(kind, call)
    if kind == "killed":
        assert not kill_proof(faults, lambda: preflight(settings)), "it was to be killed"
    checked = preflight(settings).checked
    return "checked after a restart" if kind == "killed" else "checked", checked
