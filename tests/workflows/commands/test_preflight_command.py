"""``argotune preflight`` runs the checks of the compiled step locally."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from registry_fixture import Registry

ROOT = Path(__file__).parents[3]
WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tuned}
tuning:
  preset: {name: phi-4}
  method: lora
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {image: "%s/adapter:1", imagePushSecret: push}
"""
SERVING = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: served}
inference:
  preset: {name: phi-4}
"""


@pytest.fixture
def preflight(argotune: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """``argotune preflight`` for a Workspace, without credentials."""
    for name in [name for name in os.environ if name.startswith(("ARGOTUNE_", "HF_", "KUBE"))]:
        monkeypatch.delenv(name)

    def run(text: str) -> Any:
        (tmp_path / "workspace.yaml").write_text(text)
        home = {"HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "DOCKER_CONFIG": str(tmp_path / "none")}
        return argotune("preflight", "workspace.yaml", cwd=tmp_path, **home)

    return run


def test_the_registry_is_checked_but_not_volumes(preflight: Callable[[str], Any], open_registry: Registry) -> None:
    done = preflight(WORKSPACE % open_registry.address)
    assert done.returncode == 0, done.stderr
    assert f"ok: {open_registry.address}/adapter accepts pushes" in done.stdout
    assert "rows" not in done.stdout
    assert "not checked: base model microsoft/phi-4" in done.stdout
    summary = done.stdout.splitlines()[-1]
    assert summary.startswith("1 checks passed; not checked: Secret push, base model")
    assert "not checked: Secret push (argotune validate --cluster reads it)" in done.stdout
    assert "not checked: quotas and volume claims of the cluster (pass --cluster)" in done.stdout


def test_a_failed_check_sets_the_exit_code(preflight: Callable[[str], Any], password_registry: Registry) -> None:
    done = preflight(WORKSPACE % password_registry.address)
    assert done.returncode == 2
    assert "does not allow a client without credentials to push" in done.stderr and "Traceback" not in done.stderr


def test_a_workspace_without_tuning(preflight: Callable[[str], Any]) -> None:
    done = preflight(SERVING)
    assert done.returncode == 0, done.stderr


ARGUMENTS = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tuned}
resource: {instanceType: Standard_NC24ads_A100_v4, labelSelector: {matchLabels: {app: tuned}}}
tuning:
  preset: {name: phi-4}
  method: lora
  config: mine
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapters}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mine}
data:
  training_config.yaml: |
    training_config:
      TrainingArguments:
        fp16: true
        lr_scheduler_type: cosine_with_min_lr
        optim_args: bogus=1
"""


def test_what_a_library_rejects_has_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text(ARGUMENTS)
    # A new process: torch's threads do not survive a fork.
    command = [sys.executable, "-m", "workflows.cli", "preflight", "workspace.yaml"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    for line, key in ((20, "lr_scheduler_type"), (21, "optim_args")):
        assert f"workspace.yaml:{line}: training_config.TrainingArguments.{key}: " in done.stderr
    assert "fp16" not in done.stderr, "the GPU of the instance type has it"
    assert "fix: " in done.stderr and "Traceback" not in done.stderr
