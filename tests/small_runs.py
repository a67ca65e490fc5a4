"""Runs of a small random model with the real steps, in separate processes that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import trainable_model

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: killed}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: %(method)s
  config: training
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapter}}}
pipeline:
  data: {evalSplit: %(eval_split)s}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: training}
data:
  training_config.yaml: |
    training_config:
      LoraConfig: {r: 4, lora_dropout: 0.1}
      TrainingArguments: {num_train_epochs: %(epochs)s, learning_rate: 5.0e-3, per_device_train_batch_size: 4}
"""


class SmallRun:
    """``argotune run`` in a separate directory, under the name ``killed-1``."""

    def __init__(self, folder: Path, home: Path, rows: int, **settings: object) -> None:
        """``settings`` are the values of ``WORKSPACE``; ``home`` has the model of ``make_home``."""
        self.folder = folder / "runs" / "killed-1"
        self.work = self.folder / "volumes" / "work"
        self.adapter_volume = folder / "adapter"
        self.log = folder / "output.log"
        self.file = folder / "workspace.yaml"
        trainable_model.write_rows(folder / "rows" / "a.parquet", trainable_model.chat_rows(rows))
        self.adapter_volume.mkdir()
        self.file.write_text(WORKSPACE % {"method": "lora", "eval_split": 0, "epochs": 1, **settings})
        self.volumes = [word for name in ("rows", "adapter") for word in ("--volume", f"{name}={folder / name}")]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARGOTUNE_")}
        isolated = {"HOME": str(home), "ARGOTUNE_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.environment = inherited | isolated

    def begin(self) -> subprocess.Popen[bytes]:
        return self.start("--name", "killed-1", *self.volumes)

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "workflows.cli", "run", self.file, "--runs-dir", self.folder.parent, *flags]
        if self.file.suffix == ".yaml":
            command += ["--set", "model.repository=/mnt/models/tiny"]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(timeout=1500) == 0, self.log.read_text()

    def state(self) -> dict[str, Any]:
        """Return the state of the run; empty before it was written."""
        try:
            state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = self.state().get("nodes", {})
        return nodes

    def adapter(self) -> str:
        result: dict[str, str] = json.loads((self.work / "results" / "tune.json").read_text())["result"]
        return result["adapter_digest"]


def make_home(home: Path) -> Path:
    """Write the model into the volume of models."""
    trainable_model.make_model(home / "volumes" / "argotune-models" / "tiny")
    return home
