"""A killed training resumes from its last complete checkpoint; finished work is reused."""

import functools
import json
import math
import shutil
import signal
import time
from pathlib import Path

import pytest
import trainable_model
from trainable_model import curve
from tuning import STEPS, losses, quick, settings, start, wait_for_step

from steps.models import compute_dtype
from steps.models.adapter import adapter_digest
from steps.models.layer_probe import Measurement, Seconds
from steps.runtime import gpu_time
from steps.runtime.errors import TimeLimit
from steps.tune import checkpoints
from steps.tune.step import outputs_intact


def test_a_killed_training_resumes(undisturbed: Path, tiny: Path, work: Path) -> None:
    """Killed in the first and in the second epoch; no step before the checkpoint is repeated."""
    saved: list[dict[str, float]] = []
    for step in (14, 29):
        process = start(work, tiny)
        wait_for_step(process, work, step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = curve(work)
        assert len(before) < STEPS
        assert before[: len(saved)] == saved
        markers = list((work / "checkpoints").glob("checkpoint-*/complete.json"))
        last = max(json.loads(file.read_text())["step"] for file in markers)
        assert last > len(saved)
        saved = before[:last]
    out, err = start(work, tiny).communicate()
    assert f"resuming from step {len(saved)}" in out, err
    # The lines, including times, are unchanged, so these steps were not repeated.
    assert curve(work)[: len(saved)] == saved
    assert losses(work) == pytest.approx(losses(undisturbed), abs=1e-3)
    assert adapter_digest(work / "adapter") == adapter_digest(undisturbed / "adapter")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_training_keeps_its_dtype(
    tiny: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dtype: str
) -> None:
    """As after a move to a node whose processor computes faster in the other dtype."""
    fast, slow = Seconds(wall=0.01, cpu=0.01), Seconds(wall=0.02, cpu=0.02)
    float32_is_faster = Measurement(tokens=100, float32=fast, bfloat16=slow)
    bfloat16_is_faster = Measurement(tokens=100, float32=slow, bfloat16=fast)
    first, second = float32_is_faster, bfloat16_is_faster
    if dtype == "bfloat16":
        first, second = second, first
    monkeypatch.delenv(compute_dtype.VARIABLE)
    monkeypatch.setattr(compute_dtype, "measure", lambda base, tokens: first)
    quick(work, tiny, max_steps=6)
    assert f"computing in {dtype} (" in capsys.readouterr().out
    before = losses(work)
    shutil.rmtree(work / "checkpoints" / "checkpoint-6")
    monkeypatch.setattr(compute_dtype, "measure", lambda base, tokens: second)
    quick(work, tiny, max_steps=6)
    out = capsys.readouterr().out
    assert "resuming from step 5" in out
    assert f"computing in {dtype} (" in out
    assert "is faster on this machine" in out
    assert losses(work) == pytest.approx(before, abs=1e-6)


def test_sigterm_saves_and_stops(undisturbed: Path, tiny: Path, work: Path) -> None:
    process = start(work, tiny)
    wait_for_step(process, work, 8)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    steps = len(curve(work))
    assert f"saved step {steps}" in err
    assert (work / "checkpoints" / f"checkpoint-{steps}" / checkpoints.MARKER).is_file()
    assert not (work / "adapter").exists()
    out, err = start(work, tiny).communicate()
    assert f"resuming from step {steps}" in out, err
    assert losses(work) == pytest.approx(losses(undisturbed), abs=1e-3)


def test_incomplete_checkpoints_are_removed(tiny: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = quick(work, tiny, max_steps=6)
    before = losses(work)
    for incomplete in ("checkpoint-6", "checkpoint-99"):
        (work / "checkpoints" / incomplete).mkdir(exist_ok=True)
        (work / "checkpoints" / incomplete / checkpoints.MARKER).unlink(missing_ok=True)
        (work / "checkpoints" / incomplete / "optimizer.pt").write_bytes(b"half")
    again = quick(work, tiny, max_steps=6)
    out = capsys.readouterr().out
    assert "removing checkpoint-6: incomplete" in out
    assert "removing checkpoint-99: incomplete" in out
    assert "resuming from step 5" in out
    assert again.adapter_digest == first.adapter_digest
    assert losses(work) == pytest.approx(before, abs=1e-6)


@pytest.mark.slow
def test_other_settings_or_data_restart_the_training(
    tiny: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(work, tiny)
    quick(work, tiny, learning_rate=1e-3)
    assert ": other settings or data" in capsys.readouterr().out
    trainable_model.write_rows(work / "dataset" / "train.parquet", trainable_model.chat_rows(9))
    quick(work, tiny, learning_rate=1e-3)
    out = capsys.readouterr().out
    assert ": other settings or data" in out
    assert "on 9 rows" in out
    assert "resuming" not in out


def test_a_lost_adapter_is_written_again_without_training(
    tiny: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = quick(work, tiny)
    assert outputs_intact(settings(work, tiny), first)
    weights = work / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert not outputs_intact(settings(work, tiny), first)
    capsys.readouterr()
    again = quick(work, tiny)
    assert "training" not in capsys.readouterr().out
    assert again == first


def test_finished_work_is_reused(undisturbed: Path, tiny: Path) -> None:
    before = (undisturbed / "adapter" / "adapter_model.safetensors").stat()
    out, _ = start(undisturbed, tiny).communicate()
    assert "already done" in out
    assert (undisturbed / "adapter" / "adapter_model.safetensors").stat().st_ino == before.st_ino


def test_a_used_budget_saves_and_stops(
    undisturbed: Path, tiny: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The budget is used up at the first line of the curve, however fast the machine trains.
    timer = functools.partial(gpu_time.GpuTimer, clock=lambda: time.time() + (3600 if curve(work) else 0))
    monkeypatch.setattr(gpu_time, "GpuTimer", timer)
    with pytest.raises(TimeLimit, match=r"budget of 1 hours .* is used up: step \d+ of 54 is saved"):
        quick(work, tiny, max_steps=-1, budget_hours=1)
    steps = len(curve(work))
    assert 1 <= steps < STEPS
    assert (work / "checkpoints" / f"checkpoint-{steps}" / checkpoints.MARKER).is_file()
    with pytest.raises(TimeLimit, match="tune did not start"):
        quick(work, tiny, max_steps=-1, budget_hours=1)
    result = quick(work, tiny, max_steps=-1, budget_hours=9)
    assert losses(work) == pytest.approx(losses(undisturbed), abs=1e-3)
    assert result.load_seconds > 0
    assert result.train_seconds > 3600


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_training_in_rungs_equals_an_undisturbed_one(
    undisturbed: Path, tiny: Path, work: Path, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """The learning rate follows the schedule of the whole training, and the adapter of each rung is written."""
    flags = {"max_steps": STEPS}
    first = quick(work, tiny, stop_after=share, **flags)
    assert first.steps == len(curve(work)) == math.ceil(round(share * STEPS, 6))
    assert adapter_digest(work / "adapter") == first.adapter_digest
    again = quick(work, tiny, stop_after=share, **flags)
    assert (again.adapter_digest, again.steps) == (first.adapter_digest, first.steps), "nothing is trained again"
    assert "resuming" not in capsys.readouterr().out
    last = quick(work, tiny, **flags)
    assert f"resuming from step {first.steps}" in capsys.readouterr().out
    assert last.steps == STEPS and last.adapter_digest != first.adapter_digest
    assert losses(work) == pytest.approx(losses(undisturbed), abs=1e-3)
