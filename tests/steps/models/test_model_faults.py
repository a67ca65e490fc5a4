"""Every request to the hub fails once in every way, and the process is killed after each; the model is complete."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fault_table
import pytest
from faults import RETRY_AFTER, Faults
from hub_server import COMMIT, HubServer

REPOSITORY = "someone/tiny-llama"
TELEMETRY = "GET /api/agent-harnesses"
"""Sent by the library now and then; its outcome does not matter."""
# The library reads HF_* when it is imported, which takes a second, so each attempt is a fork of one process.
FORKS = """
import os, sys, time
time.sleep = lambda seconds: print("waited", seconds, file=sys.stderr)
import httpx2, huggingface_hub.hf_api, requests
from steps.models import model, model_hub
from steps.runtime.errors import StepError
model_hub.READ_TIMEOUT_SECONDS = model_hub.CONNECT_TIMEOUT_SECONDS = 1.0
for _ in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(2, 1)
        code = 1
        try:
            model.fetch_model(model=sys.argv[1], revision="main")
            code = 0
        except StepError as error:
            print(error, file=sys.stderr)
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Fetcher:
    """Downloads the model in a separate process for each call of ``fetch``."""

    def __init__(self, hub: HubServer, home: Path) -> None:
        self.hub, self.home = hub, home
        self.log = home.with_name("log")
        variables = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}
        seconds = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", FORKS, REPOSITORY],
                env=os.environ | variables | seconds,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def fetch(self) -> int:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log.read_text()
        self.hub.faults.client(int(line))
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, size in (("config.json", 400), ("model.safetensors", 200_000), ("tokenizer.json", 9_000)):
        (folder / name).write_bytes(os.urandom(size))  # never loaded
    server = HubServer(REPOSITORY, folder)
    yield server
    server.stop()


@pytest.fixture
def fetcher(hub: HubServer, tmp_path: Path) -> Iterator[Fetcher]:
    fetcher = Fetcher(hub, tmp_path / "home")
    yield fetcher
    fetcher.close()


def test_every_call_fails_once_in_every_way(hub: HubServer, fetcher: Fetcher) -> None:
    def run(kind: str, name: str) -> tuple[Faults, str]:
        shutil.rmtree(fetcher.home, ignore_errors=True)
        hub.faults.calls.clear()
        before = fetcher.log.stat().st_size
        if kind:
            hub.faults.fail(kind, 1, name)
        code = fetcher.fetch()
        log = fetcher.log.read_text()[before:]
        if kind == "killed":
            assert code == -9, log
            assert fetcher.fetch() == 0, fetcher.log.read_text()
        else:
            assert code == 0, f"{kind} of {name}: {log}"
        if kind == "429" and name in ("GET model", "GET list of files", "GET a file"):
            waited = [float(line.split()[1]) for line in log.splitlines() if line.startswith("waited ")]
            assert max(waited, default=0) >= RETRY_AFTER, log
        assert_complete(hub, fetcher.home)
        hub.faults.calls[:] = [call for call in hub.faults.calls if call != TELEMETRY]
        return hub.faults, "fetched after a restart" if kind == "killed" else "fetched on retry"

    rows = fault_table.sweep_names("tune", run, sample=2)
    assert {row.call for row in rows} == {"HEAD /", "GET model", "GET list of files", "HEAD a file", "GET a file"}
    fault_table.check("tune: model files from the hub", rows, sample=True)


def assert_complete(hub: HubServer, home: Path) -> None:
    """Check that the cache contains exactly the model's files."""
    cached = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = cached / "snapshots" / COMMIT
    assert {path.name for path in snapshot.iterdir()} == {file.name for file in hub.files()}
    for file in hub.files():
        assert (snapshot / file.name).read_bytes() == file.read_bytes()
    assert len(list((cached / "blobs").iterdir())) == len({file.read_bytes() for file in hub.files()})
