"""``argotune preflight``: what the compiled step will ask, asked from here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from registry_fixture import Registry

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: asked}
tuning:
  preset: {name: phi-4}
  method: lora
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {image: "%s/asked:1", imagePushSecret: push}
"""
SERVING = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: served}
inference:
  preset: {name: phi-4}
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARGOTUNE_", "HF_", "KUBE"))}
    return {**kept, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "DOCKER_CONFIG": str(tmp_path / "none")}


def ask(folder: Path, text: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    (folder / "workspace.yaml").write_text(text)
    command = [sys.executable, "-m", "workflows.cli", "preflight", "workspace.yaml"]
    environment = {**environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_the_registry_is_asked_and_volumes_of_pods_are_not(
    tmp_path: Path, open_registry: Registry, home: dict[str, str]
) -> None:
    done = ask(tmp_path, WORKSPACE % open_registry.address, home)
    assert done.returncode == 0, done.stderr
    assert f"ok: {open_registry.address}/asked may be pushed to" in done.stdout
    assert "rows" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing speaks against this run")


def test_a_refusal_has_the_exit_code_of_the_step(
    tmp_path: Path, password_registry: Registry, home: dict[str, str]
) -> None:
    done = ask(tmp_path, WORKSPACE % password_registry.address, home)
    assert done.returncode == 2
    assert "does not let a client without credentials push" in done.stderr and "Traceback" not in done.stderr


def test_a_workspace_that_only_serves(tmp_path: Path, home: dict[str, str]) -> None:
    done = ask(tmp_path, SERVING, home)
    assert done.returncode == 0, done.stderr
