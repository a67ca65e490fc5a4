"""Launcher of one training process per GPU of this machine.

    python -m WORKER DIRECTORY OOM_RETRIES        with RANK, WORLD_SIZE, ... as torch.distributed.run sets them

The launcher imports no torch and uses no GPU. It forwards SIGTERM and waits for the checkpoint. If a rank fails, it
kills the others and fails with that rank's message and exit code. If a rank is out of memory, it restarts all with
smaller batches. torch.distributed.run cannot do this: it always ends with a traceback and exit code 1, and does not
wait for a checkpoint. No rank outlives the launcher, even if that is killed.
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

from steps.runtime import errors, lifetime, machine, progress
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.tune.process_group import POLL_SECONDS, RESULT, SETTINGS, failure_file

R = TypeVar("R")

TERMINATED = 143
"""Exit code after SIGTERM, as in shells."""
ROOT_CAUSE_TIMEOUT_SECONDS = 5.0
"""Wait for the root cause, after a rank has failed with an error that can be a consequence of it."""


def count(requested: int, work: Path) -> int:
    """Return the number of processes: as requested, or for 0 one per GPU, or one on a CPU.

    Raises:
        BadInput: More processes than GPUs are requested.
    """
    gpus = len(machine.read(work).gpus) if requested != 1 and machine.is_torch_built_with_cuda() else 0
    if gpus and requested > gpus:
        raise BadInput(f"processes={requested} exceeds the number of GPUs ({gpus})", "use 0 for one process per GPU")
    return requested or max(1, gpus)


def run(worker: str, settings: Options, world_size: int, result_type: type[R], oom_retries: int = 0) -> R:
    """Run the module ``worker`` in ``world_size`` processes and return the result of rank 0.

    Raises:
        StepError: The error of the first rank that failed.
        SystemExit: 143 after SIGTERM.
    """
    with tempfile.TemporaryDirectory(prefix="argotune-") as name:
        folder = Path(name)
        (folder / SETTINGS).write_bytes(settings.model_dump_json(by_alias=True).encode())
        failure = _run_once(worker, folder, world_size, oom_retries)
        if failure is None and (folder / RESULT).exists():
            result = json.loads((folder / RESULT).read_text())
            return pydantic.TypeAdapter(result_type).validate_python(result)
    if failure is None:
        sys.exit(TERMINATED)
    if failure.error:
        raise failure.error
    return run(worker, settings, world_size, result_type, oom_retries + 1)


class _Stopped(StepError):
    exit_code = TERMINATED


@dataclass(frozen=True)
class _Failure:
    """Failure of a rank."""

    error: StepError | None
    """None: out of memory."""
    is_root_cause: bool = True
    """False if it can be a consequence of another rank's failure."""


class _Worker:
    """Process of one rank."""

    def __init__(self, module: str, folder: Path, rank: int, world_size: int, oom_retries: int) -> None:
        self.rank, self.world_size, self.folder = rank, world_size, folder
        self.log = folder / f"log-{rank}.txt"
        # Only rank 0 logs.
        quiet = rank > 0 and not os.environ.get("ARGOTUNE_DEBUG")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), str(oom_retries)],
                env=_environment(rank, world_size),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=log if quiet else None,
                preexec_fn=lifetime.die_with_parent(os.getpid()),
            )

    def failure(self, code: int, stopping: bool) -> _Failure | None:
        """Return the failure for an exit code; None if there is none."""
        if code == 0 or code == TERMINATED:
            return None
        if failure_file(self.folder, self.rank).exists():
            content = json.loads(failure_file(self.folder, self.rank).read_text())
            if content.get("out_of_memory"):
                return _Failure(None)
            kind = getattr(errors, content["kind"], StepError)
            return _Failure(kind(content["message"], content["fix"]), content["is_root_cause"])
        if stopping and code == -signal.SIGTERM:
            return _Failure(_Stopped("stopped by SIGTERM before the training began", "run the step again"))
        return _Failure(self._exit_error(code))

    def _exit_error(self, code: int) -> StepError:
        rank = f"rank {self.rank} of {self.world_size}"
        fix = "run the step again; it resumes from its last checkpoint"
        if code == -signal.SIGKILL:
            return StepError(f"{rank} was killed by SIGKILL (possibly out of memory)", fix)
        reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return StepError(f"{rank} {reason}{f': {last_line}' if last_line else ''}", fix)


def _run_once(module: str, folder: Path, world_size: int, oom_retries: int) -> _Failure | None:
    workers: list[_Worker] = []
    try:
        with _forward_sigterm(workers) as signals:
            for rank in range(world_size):
                workers.append(_Worker(module, folder, rank, world_size, oom_retries))
            for number in signals:  # received before all workers were started
                _send(workers, number)
            return _wait(workers, signals)
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()


def _wait(workers: Sequence[_Worker], signals: list[int]) -> _Failure | None:
    """Wait until all workers have ended or a root cause is known."""
    alive = list(workers)
    consequence: _Failure | None = None
    deadline = 0.0
    while alive and not (consequence and time.monotonic() > deadline):
        for worker in list(alive):
            code = worker.process.poll()
            if code is None:
                continue
            alive.remove(worker)
            failure = worker.failure(code, bool(signals))
            if failure and failure.is_root_cause:
                return failure
            if failure and not consequence:
                consequence, deadline = failure, time.monotonic() + ROOT_CAUSE_TIMEOUT_SECONDS
        time.sleep(POLL_SECONDS)
    return consequence


@contextmanager
def _forward_sigterm(workers: Sequence[_Worker]) -> Iterator[list[int]]:
    """Forward SIGTERM to the workers; yield the list of received signals."""
    received: list[int] = []

    def forward(number: int, _: object) -> None:
        received.append(number)
        _send(workers, number)

    try:
        previous = signal.signal(signal.SIGTERM, forward)
    except ValueError:  # not in the main thread, whose caller stops it in another way
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)


def _send(workers: Sequence[_Worker], number: int) -> None:
    for worker in workers:
        worker.process.send_signal(number)


def _environment(rank: int, world_size: int) -> dict[str, str]:
    """Return the variables that torch.distributed.run sets for torch, accelerate and transformers."""
    distributed = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
    }
    threads = max(1, machine.cores() // world_size)
    defaults = {"OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # all ranks are on this machine, whose hostname may not resolve
    environment = {**defaults, **os.environ, **distributed}
    if rank > 0:
        environment.pop(progress.FILE_VARIABLE, None)
    return environment
