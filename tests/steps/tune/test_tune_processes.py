"""Two processes train, stop, resume and fail as one; with real processes and gloo."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from trainable_model import curve
from tuning import losses, quick, start, wait_for_step, with_rows

from steps.tune import checkpoints

pytestmark = pytest.mark.slow

# In float32 and without dropout, one process and two differ only in the order of sums.
PLAIN: dict[str, Any] = {
    "method": "lora",
    "dropout": 0.0,
    "epochs": 3,
    "max_steps": -1,
    "model_config": {"torch_dtype": "float32"},
}
TOGETHER = PLAIN | {"processes": 2, "batch_size": 2, "model_config": json.dumps(PLAIN["model_config"])}
STEPS = 54


def workers(parent: subprocess.Popen[str]) -> list[psutil.Process]:
    return sorted(psutil.Process(parent.pid).children(), key=lambda process: int(process.environ()["RANK"]))


def test_two_processes_resume_and_equal_one(tiny: Path, tmp_path: Path) -> None:
    """Two processes are stopped, then one of them is killed, and one process completes the training."""
    one, two = with_rows(tmp_path / "one"), with_rows(tmp_path / "two")
    quick(one, tiny, **PLAIN)
    assert len(losses(one)) == STEPS

    stopped = start(two, tiny, **TOGETHER)
    # In the second epoch, which has another order of rows.
    wait_for_step(stopped, two, 22)
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate()
    assert stopped.returncode == 143, err
    assert out.count("on 70 rows, global batch size 4, cpu (2 processes, ") == 1
    saved = len(curve(two))
    assert err == f"stopped by SIGTERM: saved step {saved}, from which the next start resumes\n"
    checkpoint = two / "checkpoints" / f"checkpoint-{saved}"
    assert json.loads((checkpoint / checkpoints.MARKER).read_text())["processes"] == 2
    assert (checkpoint / "rng_state_0.pth").read_bytes() != (checkpoint / "rng_state_1.pth").read_bytes()
    assert not (two / "adapter").exists()

    failed = start(two, tiny, **TOGETHER)
    wait_for_step(failed, two, saved + 7)
    first, second = workers(failed)
    os.kill(second.pid, signal.SIGKILL)
    out, err = failed.communicate()
    assert failed.returncode == 1
    assert err.startswith("error: rank 1 of 2 was killed by SIGKILL") and err.count("error") == 1, err
    assert f"resuming from step {saved}\n" in out
    assert not first.is_running()
    assert not (two / "results" / "tune.json").exists()

    last = max(int(json.loads(file.read_text())["step"]) for file in two.glob("checkpoints/*/complete.json"))
    assert 18 < saved < last < STEPS
    together = quick(two, tiny, **PLAIN, batch_size=2)
    assert together.steps == STEPS
    assert losses(two) == pytest.approx(losses(one), abs=1e-4)
    assert [entry["learning_rate"] for entry in curve(two)] == [entry["learning_rate"] for entry in curve(one)]


@pytest.mark.gpu(2)
def test_two_gpus_train_as_one_does(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With GPU settings: 4 bits, bfloat16, checkpointing, NCCL."""
    together = with_rows(tmp_path / "together")
    out, err = start(together, tiny, dropout=0.0, batch_size=2, processes=2).communicate()
    assert "global batch size 4, cuda (" in out, err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    alone = with_rows(tmp_path / "alone")
    out, err = start(alone, tiny, dropout=0.0, batch_size=4).communicate()
    assert losses(together) == pytest.approx(losses(alone), abs=2e-2), err


@pytest.mark.gpu(2)
def test_layers_are_spread_for_one_process(tiny: Path, tmp_path: Path) -> None:
    work = with_rows(tmp_path / "work")
    out, err = start(work, tiny, processes=1, max_steps=4).communicate()
    assert "global batch size 4, cuda (" in out, err
    assert len(losses(work)) == 4


def test_two_processes_end_at_their_budget(tiny: Path, tmp_path: Path) -> None:
    work = with_rows(tmp_path / "two")
    stopped = start(work, tiny, **TOGETHER, budget_hours=0.0001)
    _, err = stopped.communicate()
    assert stopped.returncode == 6, err
    saved = len(curve(work))
    assert f"is used up: step {saved} of 54 is saved" in err
    marker = work / "checkpoints" / f"checkpoint-{saved}" / checkpoints.MARKER
    assert json.loads(marker.read_text())["processes"] == 2
    out, err = start(work, tiny, **TOGETHER).communicate()
    assert f"resuming from step {saved}" in out, err
    assert len(losses(work)) == STEPS
