"""A tune step in a separate process that is ended after some seconds of training."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime import entrypoint, lifetime
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError
from steps.tune.settings import Settings

MAX_STEPS = 1_000_000
"""Steps of a training that does not end by itself."""
LOAD_SECONDS = 600
MAX_FACTOR = 10
"""A training has to complete two steps within this multiple of its seconds, after ``LOAD_SECONDS``."""
POLL_SECONDS = 0.1
ERRORS: dict[int, type[StepError]] = {2: BadInput, 4: InsufficientCapacity}


@dataclass(frozen=True)
class Curve:
    """Sums over the steps of a training, without the first one."""

    tokens: int
    seconds: float
    steps: int
    memory_gib: float
    """Peak memory, the first step included."""


def train_for(settings: Settings, seconds: float) -> Curve:
    """Run ``python -m steps.tune`` until it has trained for ``seconds`` after its first step.

    Raises:
        StepError: The training failed, or takes too long for a measurement; with the class of its own error.
    """
    settings.work.mkdir(parents=True, exist_ok=True)
    log = settings.work / "tune.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lifetime.die_with_parent(os.getpid()),
        )
        try:
            curve = _wait(process, settings.work, seconds)
        finally:
            process.kill()
            process.wait()
    if curve is None:
        raise _failure(process.returncode, log.read_text(errors="replace"))
    return curve


def _command(settings: Settings) -> list[str]:
    endless = settings.model_copy(update={"max_steps": MAX_STEPS})
    return [sys.executable, "-m", "steps.tune", *entrypoint.flags(endless).values()]


def _wait(process: subprocess.Popen[bytes], work: Path, seconds: float) -> Curve | None:
    """Return the curve when it is long enough; None if the process ends before."""
    deadline = time.monotonic() + LOAD_SECONDS + MAX_FACTOR * seconds
    while process.poll() is None:
        curve = read_curve(work)
        if curve is not None and curve.seconds >= seconds:
            return curve
        if time.monotonic() > deadline:
            if curve is not None:
                return curve
            raise StepError(
                f"two training steps take more than {LOAD_SECONDS + MAX_FACTOR * seconds:.0f} s on this machine",
                "reduce batch_size or max_length, or use a smaller model",
            )
        time.sleep(POLL_SECONDS)
    return None


def read_curve(work: Path) -> Curve | None:
    """Return the loss curve that a training has written up to now; None if it has fewer than two steps."""
    try:
        text = (work / "report" / "train.jsonl").read_text()
    except FileNotFoundError:
        return None
    # The last line can be incomplete.
    entries: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
    if len(entries) < 2:
        return None
    return Curve(
        tokens=sum(entry["tokens"] for entry in entries[1:]),
        seconds=entries[-1]["seconds"] - entries[0]["seconds"],
        steps=len(entries) - 1,
        memory_gib=max(entry["memory_gib"] for entry in entries),
    )


def _failure(code: int, log: str) -> StepError:
    """Return the error that a training has printed."""
    if code < 0:
        name = signal.Signals(-code).name
        return InsufficientCapacity(
            f"the training was killed by {name} (possibly out of memory)", "reduce batch_size or max_length"
        )
    found = re.findall(r"^error: (.*?)(?:\n {2}fix: (.*))?$", log, re.MULTILINE)
    message, fix = found[-1] if found else (f"the training ended with exit code {code}", "")
    return ERRORS.get(code, StepError)(message, fix)
