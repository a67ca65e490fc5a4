"""A killed run resumes, after a kill of the step and of the runner; with a small model in 4 bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import trainable_model
from small_runs import SmallRun, make_home

ROWS, STEPS = 70, 54


class Run(SmallRun):
    """A run with the curve of its training."""

    def losses(self) -> dict[int, float]:
        entries = trainable_model.curve(self.work)
        by_step = {int(entry["step"]): entry["loss"] for entry in entries}
        assert len(by_step) == len(entries), "duplicate step in the loss curve"
        return by_step

    def tuning(self, at_step: int) -> int:
        """Return the process id of the tune step, after it has reached a step and saved a checkpoint."""
        deadline = time.monotonic() + 1500
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
    home = make_home(tmp_path / "home")
    settings = {"method": "qlora", "epochs": 3}
    undisturbed = Run(tmp_path / "undisturbed", home, ROWS, **settings)
    undisturbed.finish(undisturbed.begin())
    run = Run(tmp_path / "disturbed", home, ROWS, **settings)
    process = run.begin()
    try:
        os.kill(run.tuning(at_step=STEPS // 3), signal.SIGKILL)
        run.tuning(at_step=STEPS * 2 // 3)
        process.kill()
        process.wait(timeout=300)
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
