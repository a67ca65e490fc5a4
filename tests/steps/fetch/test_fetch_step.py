"""The step that fetches the base model before tune: tune then needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trainable_model
from hub_server import COMMIT, HubServer

REPOSITORY = "someone/tiny-llama"
ROOT = Path(__file__).parents[3]


def run(home: Path, hub: HubServer, revision: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the step in a separate process: the libraries read HF_* when they are imported."""
    command = [sys.executable, "-m", "steps.fetch", "--work", str(home), "--model", REPOSITORY, "--revision", revision]
    variables = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": "", **env}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=120
    )


def test_tune_finds_the_model_without_the_hub(tmp_path: Path) -> None:
    hub = HubServer(REPOSITORY, trainable_model.make_model(tmp_path / "model"))
    try:
        done = run(tmp_path / "home", hub, "main", ARGOTUNE_OUTPUTS=str(tmp_path / "outputs"))
    finally:
        hub.stop()
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs" / "revision").read_text() == COMMIT
    # As in tune, which calls the same function with the same settings.
    again = run(tmp_path / "home", hub, "main")
    assert again.returncode == 0, again.stderr
    assert f"revision: {COMMIT}" in again.stdout


def test_a_missing_revision_fails_before_a_gpu_is_used(tmp_path: Path) -> None:
    hub = HubServer(REPOSITORY, trainable_model.make_model(tmp_path / "model"))
    try:
        done = run(tmp_path / "home", hub, "missing")
    finally:
        hub.stop()
    assert done.returncode == 2, done.stderr
    assert "missing" in done.stderr and "fix:" in done.stderr and "Traceback" not in done.stderr
