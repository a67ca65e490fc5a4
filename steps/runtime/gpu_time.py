"""Time for which the steps of a run hold its GPUs, by cause, and the budget that limits it.

Each attempt of a GPU step writes ``WORK/gpu-time/STEP-N.json`` every few seconds, so that a killed attempt counts too.
On a machine without GPUs the same files have the time of the steps.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from pydantic import Field

from steps.runtime import files
from steps.runtime.errors import TimeLimit
from steps.runtime.json_text import parse_json
from steps.runtime.options import Options
from steps.runtime.pod import is_pod, namespace_flag

LOADING, TRAINING, EVALUATING = "loading", "training", "evaluating"
"""Causes. Loading is the time between the start of a pod on its node and its work: image pull, imports, base model."""
CAUSES = (LOADING, TRAINING, EVALUATING)
FOLDER = "gpu-time"
CANDIDATES = "candidates"
"""Folder of the trials of a search in the work folder of the run."""
PARAMETER = "budget-hours"
"""Parameter of the Workflow with the budget, which a retry can change."""
MAX_HOURS = 8784
"""Longest duration: a leap year."""
SAVE_SECONDS = 5.0
INIT_FILE = Path("/var/run/argo/argoexec")
"""File that Argo's init container writes on the node, before the image of the step is pulled."""
MAX_PULL_SECONDS = 3600.0
"""Longest credible time between that file and the start of the step; the file of a node without clock is ignored."""


class BudgetOptions(Options):
    """Limit of the GPU time of a run."""

    budget_hours: float = Field(0, ge=0, le=MAX_HOURS)
    """Hours that tune and evaluate can hold GPUs, all attempts together; 0: no limit."""


@dataclass(frozen=True)
class Attempt:
    """The recorded time of one attempt of a step."""

    step: str
    started: datetime
    seconds: dict[str, float]
    """Seconds by cause."""
    candidate: str = ""
    """Name of the trial of a search; empty: none."""
    execution: str = ""
    """Execution of the step, as in ``GpuTimer``."""

    @property
    def total(self) -> float:
        """Seconds of all causes."""
        return sum(self.seconds.values())


class GpuTimer:
    """Measures and records one attempt; every method can be called from any thread."""

    def __init__(
        self,
        work: Path,
        step: str,
        budget_hours: float = 0,
        execution: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start in the cause ``loading``, at the start of the pod on its node.

        Args:
            work: work folder of the step; those of candidates record in the work folder of the run.
            step: name of the step.
            budget_hours: limit of the time of all attempts; 0: none.
            execution: what all attempts of one execution of the step have in common, and no other execution of it: a
                search with successive halving runs tune and evaluate of a trial again for each rung.
            clock: current time in seconds.
        """
        self._clock, self._budget = clock, 3600 * budget_hours
        self._lock = threading.Lock()
        earlier = read(work)
        self._before = sum(attempt.total for attempt in _share_time(earlier))
        self._started = _start(clock(), earlier)
        self._step, self._cause, self._since = step, LOADING, self._started
        self._seconds: dict[str, float] = {}
        self._candidate, self._execution = _candidate(work), execution
        # Also complete ones: their pod can be lost before Argo reads its outputs.
        own = (step, self._candidate, execution)
        self._earlier = [one for one in earlier if (one.step, one.candidate, one.execution) == own]
        # Concurrent trials of a search write to different files.
        self._file = _new_file(_folder(work), f"{step}-{self._candidate}" if self._candidate else step)
        self.save()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of this attempt by cause, up to now."""
        running = max(0.0, self._clock() - self._since)
        return {**self._seconds, self._cause: self._seconds.get(self._cause, 0.0) + running}

    def step_seconds(self, cause: str) -> float:
        """Return the seconds of a cause in this attempt and earlier ones of the same execution."""
        return round(sum_seconds(self._earlier, cause) + self.seconds.get(cause, 0.0), 3)

    def switch(self, cause: str) -> None:
        """Count the time from now on for another cause."""
        with self._lock:
            self._seconds, self._cause, self._since = self.seconds, cause, self._clock()

    def save(self) -> None:
        """Write the record; a step does not fail because that is impossible."""
        with self._lock, suppress(OSError):
            seconds = {cause: round(value, 3) for cause, value in self.seconds.items()}
            started = datetime.fromtimestamp(self._started, UTC).isoformat(timespec="milliseconds")
            record: dict[str, Any] = {"step": self._step, "candidate": self._candidate, "execution": self._execution}
            files.write_json(self._file, record | {"started": started, "seconds": seconds})

    def is_budget_used_up(self) -> bool:
        """Return True if the run has used its budget."""
        return bool(self._budget) and self._before + sum(self.seconds.values()) >= self._budget

    def check_budget(self, state: str) -> None:
        """Do nothing while the budget lasts.

        Raises:
            TimeLimit: The budget is used up; ``state`` is what the step has done, and keeps.
        """
        if self.is_budget_used_up():
            raise TimeLimit(
                f"the budget of {self._budget / 3600:g} hours of GPU time (pipeline.budget) is used up: {state}",
                f"increase it and resume: argotune run FILE --resume -p {PARAMETER}=HOURS; on a cluster: "
                f"argo retry NAME -p {PARAMETER}=HOURS{namespace_flag()}",
            )


@contextmanager
def measure(work: Path, step: str, budget_hours: float = 0, execution: str = "") -> Iterator[GpuTimer]:
    """Record the time of an attempt until the context ends; arguments as ``GpuTimer``.

    Raises:
        TimeLimit: Earlier attempts have used up the budget.
    """
    timer = GpuTimer(work, step, budget_hours, execution)
    timer.check_budget(f"{step} did not start")
    ended = threading.Event()
    thread = threading.Thread(target=_save_regularly, args=(timer, ended), daemon=True)
    thread.start()
    try:
        yield timer
    finally:
        ended.set()
        thread.join()
        timer.save()


def read(work: Path) -> list[Attempt]:
    """Return the recorded attempts of a run by start; records that cannot be read are omitted."""
    return sorted(_read_all(_folder(work).glob("*.json")), key=lambda attempt: attempt.started)


def sum_seconds(attempts: Sequence[Attempt], cause: str, step: str = "") -> float:
    """Return the seconds of a cause, of all steps or of one."""
    return sum(attempt.seconds.get(cause, 0.0) for attempt in attempts if step in ("", attempt.step))


def _share_time(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the attempts with each moment divided among those that were running.

    The sum is then the time for which the nodes were in use, also with concurrent trials of a search.
    """
    spans = [(start := attempt.started.timestamp(), start + attempt.total) for attempt in attempts]
    moments = sorted({moment for span in spans for moment in span})
    shares = [0.0] * len(attempts)
    for begin, end in pairwise(moments):
        running = [index for index, (start, until) in enumerate(spans) if start <= begin and end <= until]
        for index in running:
            shares[index] += (end - begin) / len(running)
    return [
        replace(attempt, seconds={cause: value * share / attempt.total for cause, value in attempt.seconds.items()})
        if attempt.total
        else attempt
        for attempt, share in zip(attempts, shares, strict=True)
    ]


def _candidate(work: Path) -> str:
    return work.name if work.parent.name == CANDIDATES else ""


def _folder(work: Path) -> Path:
    return (work.parent.parent if _candidate(work) else work) / FOLDER


def _new_file(folder: Path, name: str) -> Path:
    taken = {file.name for file in folder.glob("*.json")}
    return next(folder / file for number in count(1) if (file := f"{name}-{number}.json") not in taken)


def _start(now: float, earlier: Sequence[Attempt]) -> float:
    """Return when Argo's init container ran on the node, but not before the end of earlier attempts in this pod.

    Outside of a pod it is ``now``.
    """
    with suppress(OSError):
        written = INIT_FILE.stat().st_ctime
        if is_pod() and 0 <= now - written <= MAX_PULL_SECONDS:
            ends = [attempt.started.timestamp() + attempt.total for attempt in earlier]
            return min(now, max(written, *ends)) if ends else written
    return now


def _save_regularly(timer: GpuTimer, ended: threading.Event) -> None:
    while not ended.wait(SAVE_SECONDS):
        timer.save()


def _read_all(paths: Iterator[Path]) -> Iterator[Attempt]:
    for path in paths:
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            record = parse_json(path.read_text())
            started = datetime.fromisoformat(record["started"])
            seconds = {cause: _seconds(record["seconds"].get(cause, 0)) for cause in CAUSES}
            if started.tzinfo:
                candidate, execution = (str(record.get(key, "")) for key in ("candidate", "execution"))
                yield Attempt(str(record["step"]), started, seconds, candidate, execution)


def _seconds(value: Any) -> float:
    """Return a duration.

    Raises:
        ValueError: it is none.
    """
    seconds = float(value)
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_HOURS * 3600:
        raise ValueError(f"{value!r} is not a duration")
    return seconds
