"""``argotune preflight``: what the compiled step will ask, asked from here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
def ask(argotune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """``argotune preflight`` for a Workspace, as somebody asks who has no credentials."""
    for name in [name for name in os.environ if name.startswith(("ARGOTUNE_", "HF_", "KUBE"))]:
        monkeypatch.delenv(name)

    def ask(text: str) -> Any:
        (tmp_path / "workspace.yaml").write_text(text)
        home = {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "DOCKER_CONFIG": str(tmp_path / "none")}
        return argotune("preflight", "workspace.yaml", cwd=tmp_path, **home)

    return ask


def test_the_registry_is_asked_and_volumes_of_pods_are_not(ask: Callable[[str], Any], open_registry: Registry) -> None:
    done = ask(WORKSPACE % open_registry.address)
    assert done.returncode == 0, done.stderr
    assert f"ok: {open_registry.address}/asked may be pushed to" in done.stdout
    assert "rows" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing speaks against this run")


def test_a_refusal_has_the_exit_code_of_the_step(ask: Callable[[str], Any], password_registry: Registry) -> None:
    done = ask(WORKSPACE % password_registry.address)
    assert done.returncode == 2
    assert "does not allow a client without credentials to push" in done.stderr and "Traceback" not in done.stderr


def test_a_workspace_that_only_serves(ask: Callable[[str], Any]) -> None:
    done = ask(SERVING)
    assert done.returncode == 0, done.stderr
