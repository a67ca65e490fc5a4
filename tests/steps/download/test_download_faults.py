"""Every call of the download fails once in every way, and the process is killed after each of them.

In the end the rows are all there, none twice, and nothing that was fetched is fetched again.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fault_table
import pyarrow.parquet as pq
import pytest
from data_image import build_data_image
from dataset_hub import DatasetHub
from faults import RETRY_AFTER, Faults, kill_proof, read_timeout
from object_stores import SERVERS
from parquet_server import Fault, ParquetServer
from registry_fixture import Front, Registry, ref

from steps.data import fetch, transfer
from steps.data.locations import http_file, object_store
from steps.download.settings import Settings
from steps.download.step import download
from steps.oci import registry, registry_client
from steps.runtime import speed
from steps.runtime.errors import StepError
from steps.runtime.retry import RetryPolicy
from steps.runtime.speed import MinSpeed

NUMBER = itertools.count()
DIRECT, MOVED, STORED = "/direct.parquet", "/moved.parquet", "/store/moved.parquet"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits, recorded without waiting; one connection, so that calls have an order."""
    waited: list[float] = []
    monkeypatch.setattr(fetch, "fetch_all", functools.partial(fetch.fetch_all, wait=waited.append))
    monkeypatch.setattr(fetch, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr("os.fsync", lambda _: None)  # Processes are killed here, machines are not.
    return waited


@pytest.fixture(scope="module")
def bodies(as_parquet: Callable[..., bytes], chats: Callable[..., list[Any]]) -> dict[str, bytes]:
    return {
        DIRECT: as_parquet(messages=chats(30, "direct")),
        STORED: as_parquet(messages=chats(30, "moved")),
    }


@pytest.fixture
def attempt(
    tmp_path: Path, bodies: dict[str, bytes], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Faults, str]]:
    """``attempt(kind, call)``: the download of both files; with ``cut``, of what another one did not get of them."""

    def run(kind: str, call: int, cut: int = 0) -> tuple[Faults, str]:
        server = ParquetServer()
        for path, body in bodies.items():
            server.put(path, body)
        urls = [server.url + DIRECT, server.redirect(MOVED, STORED)]
        settings = Settings(work=tmp_path / str(next(NUMBER)), urls=urls, allow_private_hosts=True)
        monkeypatch.setattr(http_file, "TIMEOUTS", (30, read_timeout(kind)))
        waits.clear()
        try:
            if cut:
                with monkeypatch.context() as once:
                    once.setattr(transfer, "RETRY", RetryPolicy(max_attempts=1))
                    for path in bodies:
                        server.faults[path].append(Fault(cut_after=cut))
                    with pytest.raises(StepError):
                        download(settings)
                server.calls.calls.clear()
            outcome = tried(server.calls, kind, call, settings)
            assert kind != "429" or RETRY_AFTER in waits
            whole(settings, {path: server.sent(path) for path in bodies}, bodies)
            return server.calls, outcome
        finally:
            server.stop()

    return run


def tried(faults: Faults, kind: str, call: int, settings: Settings) -> str:
    """Run the step, again where it was killed."""
    if kind:
        faults.fail(kind, call)
    if kind == "killed":
        assert not kill_proof(faults, lambda: download(settings)), "it was to be killed"
    download(settings)
    return "succeeds after a restart" if kind == "killed" else "succeeds on retry"


def whole(settings: Settings, sent: dict[str, int], bodies: dict[str, bytes]) -> None:
    """All rows exist once, no byte was sent twice, and no other file remains."""
    rows_are_there(settings, 60)
    assert all(sent[path] <= len(body) for path, body in bodies.items()), "what was there was fetched again"
    left = [path.name for path in (settings.work / "dataset").rglob("*") if "partial" in path.name]
    assert not left
    assert len(list((settings.work / "dataset" / "raw").glob("*.parquet"))) == len(bodies)


def rows_are_there(settings: Settings, count: int) -> None:
    dataset = settings.work / "dataset"
    found = [
        json.dumps(row)
        for name in ("train.parquet", "eval.parquet")
        for row in pq.read_table(dataset / name, use_threads=False)["messages"].to_pylist()
    ]
    assert len(found) == len(set(found)) == count
    assert json.loads((dataset / "manifest.json").read_text())["duplicate_rows"] == 0


def test_url_faults(attempt: Callable[..., tuple[Faults, str]]) -> None:
    rows = fault_table.sweep("download", attempt, sample=3)
    assert [row.call for row in rows[:: len(rows) // 3]] == [f"GET {path}" for path in (DIRECT, MOVED, STORED)]
    fault_table.check("download", rows, sample=True)


def test_partial_file_faults(attempt: Callable[..., tuple[Faults, str]]) -> None:
    rows = fault_table.sweep("download: resumed", functools.partial(attempt, cut=400), sample=3)
    assert f"GET {DIRECT}, a part" in {row.call for row in rows}
    fault_table.check("download: resumed", rows, sample=True)


def test_hub_dataset_faults(
    tmp_path: Path, bodies: dict[str, bytes], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(kind: str, call: int) -> tuple[Faults, str]:
        hub = DatasetHub()
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(http_file, "TIMEOUTS", (30, read_timeout(kind)))
        hub.commit(
            {"README.md": b"# Rows", **{f"train{path.replace('/', '-')}": body for path, body in bodies.items()}}
        )
        url = "hf://datasets/org/rows"
        settings = Settings(work=tmp_path / str(next(NUMBER)), urls=[url], allow_private_hosts=True)
        waits.clear()
        try:
            outcome = tried(hub.faults, kind, call, settings)
        finally:
            hub.stop()
        assert kind != "429" or RETRY_AFTER in waits
        rows_are_there(settings, 60)
        return hub.faults, outcome

    fault_table.check("download: hub dataset", fault_table.sweep("download", run, sample=3), sample=True)


@pytest.mark.slow
def test_object_faults(
    tmp_path: Path, bodies: dict[str, bytes], another_front: Callable[[str], Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SERVERS["s3"]() as store:
        for path, body in bodies.items():
            store.put(f"data/{path.replace('/', '-')}", body)

        def run(kind: str, call: int) -> tuple[Faults, str]:
            front = another_front(f"127.0.0.1:{store.port}")
            for name, value in store.environment(int(front.address.rpartition(":")[2])).items():
                monkeypatch.setenv(name, value)
            # Short where no answer comes; elsewhere long enough that a slow machine causes no faults.
            monkeypatch.setattr(object_store, "RESPONSE_SECONDS", 4.0 if kind == "timeout" else 60.0)
            monkeypatch.setattr(speed, "MIN_SPEED", MinSpeed(1, 4.0 if kind == "timeout" else 60.0))
            settings = Settings(work=tmp_path / str(next(NUMBER)), urls=["s3://rows/data"], allow_private_hosts=True)
            outcome = tried(front.faults, kind, call, settings)
            rows_are_there(settings, 60)
            return front.faults, outcome

        rows = fault_table.sweep("download", run, sample=3, max_repeats=2)
        fault_table.check("download: objects of S3", rows, sample=True)


@pytest.fixture
def another_front() -> Iterator[Callable[[str], Front]]:
    fronts: list[Front] = []

    def make(behind: str) -> Front:
        fronts.append(Front(behind))
        return fronts[-1]

    yield make
    for one in fronts:
        one.close()


@pytest.mark.usefixtures("docker_config")
def test_data_image_faults(
    tmp_path: Path,
    bodies: dict[str, bytes],
    open_registry: Registry,
    another_front: Callable[[str], Front],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry_client, "RETRY", RetryPolicy(initial_seconds=0.0, max_retry_after_seconds=0.0))
    layout = tmp_path / "layout"
    build_data_image(layout, {path.replace("/", "_"): body for path, body in bodies.items()})
    registry.push_image(layout, ref(f"{open_registry.address}/faults/rows:1"))

    def run(kind: str, call: int) -> tuple[Faults, str]:
        monkeypatch.setattr(registry_client, "TIMEOUT", (30, read_timeout(kind)))
        before = another_front(open_registry.address)
        settings = Settings(work=tmp_path / str(next(NUMBER)), image=f"{before.address}/faults/rows:1")
        outcome = tried(before.faults, kind, call, settings)
        rows_are_there(settings, 60)
        raw = settings.work / "dataset" / "raw"
        assert [path.name for path in raw.iterdir()] == ["image"], "no other file remains"
        assert len(list((raw / "image").iterdir())) == len(bodies)
        return before.faults, outcome

    fault_table.check("download: data image", fault_table.sweep("download", run, sample=3), sample=True)
