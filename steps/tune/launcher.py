"""One process for each GPU of this machine, started, watched and ended by the step's own process.

    python -m WORKER FOLDER HALVINGS        with RANK, WORLD_SIZE, ... as torch's own launcher sets them

The step's process imports no torch and holds no GPU. It hands SIGTERM on and waits for the checkpoint; when a process
fails it ends the others, and the step fails in that one's words and with its exit code; when one is short of memory
it starts all again with half of the rows at a time. torch.distributed.run does none of these: it ends with a traceback
and exit code 1 whatever was wrong, and gives a checkpoint no time. No process outlives the step, even one that is
killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pydantic

from steps.runtime import errors, lifetime, machine
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.tune.process_group import POLL_SECONDS, RESULT, SETTINGS, failure_file

R = TypeVar("R")

TERMINATED = 143
"""Exit code after SIGTERM, as a shell tells it."""
DOUBT_SECONDS = 5.0
"""How long another process may take to tell the cause, after one has failed with what may only follow from it."""


def count(wanted: int, work: Path) -> int:
    """How many processes are to train: so many as wanted; for 0, one for each GPU, or one on a processor.

    Raises:
        BadInput: more are wanted than there are GPUs.
    """
    gpus = len(machine.read(work).gpus) if wanted != 1 and machine.is_torch_built_with_cuda() else 0
    if gpus and wanted > gpus:
        raise BadInput(f"{wanted} processes are wanted, and there are {gpus} GPUs", "write 0: one for each GPU")
    return wanted or max(1, gpus)


def run(worker: str, given: Options, count: int, result_type: type[R]) -> R:
    """Run the module ``worker`` in so many processes with the settings ``given``, and return the first one's result.

    Raises:
        StepError: what the first of them to fail failed with.
        SystemExit: 143 after SIGTERM.
    """
    oom_retries = 0
    while True:
        with tempfile.TemporaryDirectory(prefix="argotune-") as name:
            folder = Path(name)
            (folder / SETTINGS).write_bytes(given.model_dump_json(by_alias=True).encode())
            cause = _run_once(worker, folder, count, oom_retries)
            if cause is None and (folder / RESULT).exists():
                told = json.loads((folder / RESULT).read_text())
                return pydantic.TypeAdapter(result_type).validate_python(told)
        if cause is None:
            sys.exit(TERMINATED)
        if isinstance(cause.error, StepError):
            raise cause.error
        oom_retries += 1


class _Stopped(StepError):
    exit_code = TERMINATED


@dataclass(frozen=True)
class _Cause:
    """Why a process ended before its time."""

    error: StepError | None
    """None: it was short of memory."""
    certain: bool = True
    """Whether it can't be that it failed only because another did."""


class _Worker:
    """One process."""

    def __init__(self, module: str, folder: Path, rank: int, count: int, oom_retries: int) -> None:
        self.rank, self.count, self.folder = rank, count, folder
        self.log = folder / f"log-{rank}.txt"
        # The first one talks for all.
        quiet = rank > 0 and not os.environ.get("ARGOTUNE_DEBUG")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), str(oom_retries)],
                env=_environment(rank, count),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=log if quiet else None,
                preexec_fn=lifetime.die_with_parent(os.getpid()),
            )

    def cause(self, code: int, stopping: bool) -> _Cause | None:
        """Why it ended with this code; None when it was to."""
        if code == 0 or code == TERMINATED:
            return None
        if failure_file(self.folder, self.rank).exists():
            told = json.loads(failure_file(self.folder, self.rank).read_text())
            if told.get("halve"):
                return _Cause(None)
            kind = getattr(errors, told["kind"], StepError)
            return _Cause(kind(told["message"], told["fix"]), told["certain"])
        if stopping and code == -signal.SIGTERM:
            return _Cause(_Stopped("stopped by SIGTERM before the training began"))
        return _Cause(self._killed(code))

    def _killed(self, code: int) -> StepError:
        who = f"process {self.rank + 1} of {self.count}"
        again = "started again, the step goes on from its last checkpoint"
        if code == -signal.SIGKILL:
            return StepError(f"{who} was killed: this machine may be short of memory", again)
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return StepError(f"{who} ended {how}{f': {last}' if last else ''}", again)


def _run_once(module: str, folder: Path, count: int, oom_retries: int) -> _Cause | None:
    workers: list[_Worker] = []
    try:
        with _forward_sigterm(workers) as stopping:
            for rank in range(count):
                workers.append(_Worker(module, folder, rank, count, oom_retries))
            for number in stopping:  # came before all were there
                _send(workers, number)
            return _watch(workers, stopping)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()


def _watch(workers: Sequence[_Worker], stopping: list[int]) -> _Cause | None:
    """Wait until all have ended, or one for a cause that is certain."""
    alive = list(workers)
    doubtful: _Cause | None = None
    until = 0.0
    while alive and not (doubtful and time.monotonic() > until):
        for worker in list(alive):
            code = worker.process.poll()
            if code is None:
                continue
            alive.remove(worker)
            cause = worker.cause(code, bool(stopping))
            if cause and cause.certain:
                return cause
            if cause and not doubtful:
                doubtful, until = cause, time.monotonic() + DOUBT_SECONDS
        time.sleep(POLL_SECONDS)
    return doubtful


@contextmanager
def _forward_sigterm(workers: Sequence[_Worker]) -> Iterator[list[int]]:
    """While they run, SIGTERM is theirs; gives the list of those that came."""
    came: list[int] = []

    def hand_on(number: int, _: object) -> None:
        came.append(number)
        _send(workers, number)

    try:
        before = signal.signal(signal.SIGTERM, hand_on)
    except ValueError:  # not in the main thread: who calls from there stops it otherwise
        yield came
        return
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _send(workers: Sequence[_Worker], number: int) -> None:
    for worker in workers:
        worker.process.send_signal(number)


def _environment(rank: int, count: int) -> dict[str, str]:
    """What torch, accelerate and transformers find out from, as torch.distributed.run sets it."""
    place = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    threads = max(1, machine.cores() // count)
    defaults = {"OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # they are all on this machine, whose name may mean nothing
    whole = {**defaults, **os.environ, **place}
    if rank > 0:
        whole.pop("ARGO_PROGRESS_FILE", None)
    return whole
