"""A killed run resumes, after a kill of the step and of the runner; with a small model in 4 bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import trainable_model

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: killed}
tuning:
  preset: {name: smollm2-135m-instruct}
  method: qlora
  config: training
  input: {volumeSource: {persistentVolumeClaim: {claimName: rows}}}
  output: {volumeSource: {persistentVolumeClaim: {claimName: adapter}}}
pipeline:
  data: {evalSplit: 0}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: training}
data:
  training_config.yaml: |
    training_config:
      LoraConfig: {r: 4, lora_dropout: 0.1}
      TrainingArguments: {num_train_epochs: 3, learning_rate: 5.0e-3, per_device_train_batch_size: 4}
"""
ROWS, STEPS = 70, 54


class Run:
    """``argotune run`` of the Workspace in a separate directory."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder / "runs" / "killed-1"
        self.work = self.folder / "volumes" / "work"
        self.log = folder / "output.log"
        trainable_model.write_rows(folder / "rows" / "a.parquet", trainable_model.chat_rows(ROWS))
        (folder / "adapter").mkdir()
        (folder / "workspace.yaml").write_text(WORKSPACE)
        self.volumes = [word for name in ("rows", "adapter") for word in ("--volume", f"{name}={folder / name}")]
        self.command = [sys.executable, "-m", "workflows.cli", "run", folder / "workspace.yaml"]
        self.command += ["--set", "model.repository=/mnt/models/tiny", "--runs-dir", self.folder.parent]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ARGOTUNE_")}
        isolated = {"HOME": str(home), "ARGOTUNE_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.environment = inherited | isolated

    def begin(self) -> subprocess.Popen[bytes]:
        return self.start("--name", "killed-1", *self.volumes)

    def start(self, *flags: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.command, *flags], stdout=log, stderr=subprocess.STDOUT, env=self.environment
            )

    def finish(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(timeout=600) == 0, self.log.read_text()

    def nodes(self) -> dict[str, Any]:
        nodes: dict[str, Any] = json.loads((self.folder / "state.json").read_text())["nodes"]
        return nodes

    def losses(self) -> dict[int, float]:
        entries = trainable_model.curve(self.work)
        by_step = {int(entry["step"]): entry["loss"] for entry in entries}
        assert len(by_step) == len(entries), "duplicate step in the loss curve"
        return by_step

    def adapter(self) -> str:
        result: dict[str, str] = json.loads((self.work / "results" / "tune.json").read_text())["result"]
        return result["adapter_digest"]

    def tuning(self, at_step: int) -> int:
        """Return the process id of the tune step, after it has reached a step and saved a checkpoint."""
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            step = len(trainable_model.curve(self.work))
            if step >= at_step and list((self.work / "checkpoints").glob("checkpoint-*/complete.json")):
                for process in psutil.process_iter(["cmdline"]):
                    words = process.info["cmdline"] or []
                    if "steps.tune" in words and str(self.work) in words:
                        return process.pid
            time.sleep(0.01)
        raise AssertionError(f"tuning did not reach step {at_step}: {self.log.read_text()}")


def test_a_killed_run_resumes_with_the_same_loss_curve(tmp_path: Path) -> None:
    """The tune step is killed and retried, then the runner is killed and resumed with ``--resume``."""
    home = tmp_path / "home"
    trainable_model.make_model(home / "volumes" / "argotune-models" / "tiny")
    undisturbed = Run(tmp_path / "undisturbed", home)
    undisturbed.finish(undisturbed.begin())
    run = Run(tmp_path / "disturbed", home)
    process = run.begin()
    try:
        os.kill(run.tuning(at_step=STEPS // 3), signal.SIGKILL)
        run.tuning(at_step=STEPS * 2 // 3)
        process.kill()
        process.wait(timeout=60)
        before = run.nodes()
        assert before["tune"]["phase"] != "Succeeded"
        run.finish(run.start("--resume"))
    finally:
        process.kill()
    after = run.nodes()
    for step in ("preflight", "provision", "download"):
        assert after[step] == before[step], f"{step} was repeated"
    assert {after[step]["phase"] for step in ("tune", "package")} == {"Succeeded"}
    log = "".join(path.read_text() for path in sorted((run.folder / "nodes" / "tune").glob("*.log")))
    assert "Linear4bit" in log
    assert log.count("resuming from step ") == 2
    assert sorted(undisturbed.losses()) == list(range(1, STEPS + 1))
    assert run.losses() == pytest.approx(undisturbed.losses(), abs=1e-3)
    assert run.adapter() == undisturbed.adapter()
