"""The step that fetches own weights by ``hf://``: their revision, permission, and what an interruption leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer

REPOSITORY = "someone/own-llama"
WEIGHTS = "model.safetensors"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, size in (("config.json", 400), (WEIGHTS, 200_000), ("tokenizer.json", 9_000)):
        (folder / name).write_bytes(os.urandom(size))  # never loaded
    server = HubServer(REPOSITORY, folder)
    yield server
    server.stop()


def start(home: Path, hub: HubServer, model: str, *args: str) -> subprocess.Popen[str]:
    """Start the step in a separate process: the libraries read HF_* when they are imported."""
    command = [sys.executable, "-m", "steps.fetch", "--work", str(home), "--model", model, *args]
    variables = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_OFFLINE": ""}
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(home: Path, hub: HubServer, model: str, *args: str) -> tuple[int, str]:
    """Return the exit code and the output of the step."""
    process = start(home, hub, model, *args)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out + err


def cached(home: Path, folder: str) -> Path:
    return home / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / folder


def assert_fetched(hub: HubServer, home: Path) -> None:
    snapshot = cached(home, "snapshots") / COMMIT
    assert {file.name: file.read_bytes() for file in snapshot.iterdir()} == {
        file.name: file.read_bytes() for file in hub.files()
    }
    assert not list(cached(home, "blobs").glob("*.incomplete"))


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_a_repository_is_fetched_at_its_revision(hub: HubServer, tmp_path: Path, revision: str) -> None:
    home = tmp_path / "home"
    # The revision of the location takes precedence, as in plans.
    code, output = run(home, hub, f"hf://{REPOSITORY}@{revision}", "--revision", "missing")
    assert code == 0, output
    assert f"base model: {REPOSITORY} from the hub, commit {COMMIT}" in output
    assert_fetched(hub, home)


def test_a_missing_revision_of_the_location_is_named(hub: HubServer, tmp_path: Path) -> None:
    code, output = run(tmp_path / "home", hub, f"hf://{REPOSITORY}@v9")
    assert code == 2, output
    assert f"{REPOSITORY}: revision v9 not found" in output and "fix: use a branch, a tag or a full commit" in output
    assert hub.fetched == []


def test_gated_weights_name_the_secret_to_set(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "hf_good"
    code, output = run(tmp_path / "home", hub, f"hf://{REPOSITORY}@{COMMIT}")
    assert code == 2, output
    assert f"{REPOSITORY} is gated" in output
    assert "fix: accept its license on the hub, then set a token that can read it: modelAccessSecret" in output


def test_a_cut_transfer_resumes_where_it_ended(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    chunk = 10 * 2**20  # the library keeps whole chunks of a transfer
    (hub.folder / WEIGHTS).write_bytes(os.urandom(3 * chunk))
    hub.cuts = WEIGHTS
    code, output = run(home, hub, f"hf://{REPOSITORY}")
    assert code == 0, output
    assert hub.offsets == [chunk]
    assert_fetched(hub, home)


def test_a_killed_transfer_keeps_complete_files(hub: HubServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    hub.stalls = WEIGHTS
    killed = start(home, hub, f"hf://{REPOSITORY}")
    try:
        assert hub.stalled.wait(120)
        wait_for(cached(home, "snapshots") / COMMIT, {"config.json", "tokenizer.json"})
    finally:
        killed.kill()
        killed.communicate()
    assert list(cached(home, "blobs").glob("*.incomplete")), "the weights were not being written"
    hub.stalls = ""
    hub.fetched.clear()
    code, output = run(home, hub, f"hf://{REPOSITORY}")
    assert code == 0, output
    assert hub.fetched == [WEIGHTS]
    assert_fetched(hub, home)


def wait_for(folder: Path, names: set[str]) -> None:
    end = time.monotonic() + 120
    while not folder.is_dir() or not names <= {file.name for file in folder.iterdir()}:
        assert time.monotonic() < end, f"{folder} has no {names}"
        time.sleep(0.05)
