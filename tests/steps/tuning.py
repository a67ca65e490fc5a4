"""Helpers that tune the small model of ``trainable_model``, in a new process or in this one."""

import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import trainable_model
from trainable_model import curve

from steps.tune.settings import Result as TuneResult
from steps.tune.settings import Settings as TuneSettings
from steps.tune.step import tune

EPOCHS, ROWS, BATCH = 3, 70, 4
STEPS = 54
# With dropout and a partial last batch, so that order and random state matter.
FLAGS: dict[str, Any] = {
    "epochs": EPOCHS,
    "batch_size": BATCH,
    "rank": 4,
    "alpha": 8,
    "dropout": 0.1,
    "learning_rate": 5e-3,
    "max_length": 128,
}


@cache
def small_model(base: Path) -> Path:
    """Create the model below ``base``, once per session."""
    return trainable_model.make_model(base / "trainable-model")


@cache
def undisturbed_run(base: Path) -> Path:
    """Return the work directory of a complete training, run once per session; tests only read it."""
    work = with_rows(base / "undisturbed")
    out, err = start(work, small_model(base)).communicate()
    assert "tokens-per-second" in out, err
    return work


def tuned(work: Path, model: Path, held_out: list[Any]) -> Path:
    """Train an adapter on the rows' one answer, add held-out rows, and return the work directory."""
    with_rows(work, 40)
    trainable_model.write_rows(work / "dataset" / "eval.parquet", held_out)
    tune(TuneSettings(work=work, model=str(model), rank=8, learning_rate=2e-2, epochs=4, max_length=128))
    return work


def with_rows(work: Path, count: int = ROWS) -> Path:
    trainable_model.write_rows(work / "dataset" / "train.parquet", trainable_model.chat_rows(count))
    return work


def start(work: Path, model: Path, **flags: Any) -> subprocess.Popen[str]:
    values = {"work": work, "model": model, **FLAGS, **flags}
    command = [sys.executable, "-m", "steps.tune"]
    command += [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=one_thread())


def one_thread() -> dict[str, str]:
    """Return the environment for one thread, since so small a model does not use a second."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def quick(work: Path, model: Path, **flags: Any) -> TuneResult:
    return tune(TuneSettings(work=work, model=str(model), **{**FLAGS, "max_steps": 4, **flags}))


def wait_for_step(process: subprocess.Popen[str], work: Path, step: int) -> None:
    deadline = time.monotonic() + 1500
    while len(curve(work)) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def losses(work: Path) -> list[float]:
    entries = curve(work)
    assert [entry["step"] for entry in entries] == list(range(1, len(entries) + 1))
    return [entry["loss"] for entry in entries]


def settings(work: Path, model: Path, **flags: Any) -> TuneSettings:
    return TuneSettings(work=work, model=str(model), **{**FLAGS, **flags})
