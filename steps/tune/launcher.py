"""Launcher of one training process per GPU of this machine.

    python -m WORKER DIRECTORY OOM_RETRIES        with RANK, WORLD_SIZE, ... as torch.distributed.run sets them

The launcher imports no torch and uses no GPU. It forwards SIGTERM and waits for the checkpoint. If a rank fails, it
kills the others and fails with that rank's message and exit code. If a rank is out of memory, it restarts all with
smaller batches. torch.distributed.run cannot do this: it always ends with a traceback and exit code 1, and does not
wait for a checkpoint. No rank outlives the launcher, even if that is killed.

With several nodes there is a launcher on each. The first one decides: it restarts all nodes if one is lost or out of
memory, and fails with the error of any of them.
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
from typing import Protocol, TypeVar

import pydantic

from steps.runtime import errors, lifetime, machine, progress
from steps.runtime.errors import BadInput, StepError
from steps.runtime.options import Options
from steps.runtime.pod import is_pod
from steps.tune import layout as layouts
from steps.tune.layout import Layout, NodeLost, NodeOutOfMemory
from steps.tune.process_group import POLL_SECONDS, RESULT, SETTINGS, failure_file

R = TypeVar("R")

TERMINATED = 143
"""Exit code after SIGTERM, as in shells."""
ROOT_CAUSE_TIMEOUT_SECONDS = 5.0
"""Wait for the root cause, after a rank has failed with an error that can be a consequence of it."""
OTHER_NODES_TIMEOUT_SECONDS = 60.0
"""The same if the cause can be on another node, whose state Kubernetes reports."""


@dataclass(frozen=True)
class Failure:
    """Failure of a rank or a node."""

    error: StepError | None
    """None: out of memory."""
    is_root_cause: bool = True
    """False if it can be a consequence of another rank's failure."""


class OtherNodes(Protocol):
    """The nodes of a training that run elsewhere."""

    def start(self, layout: Layout, oom_retries: int) -> None:
        """Start them, to connect to rank 0 at the layout's address."""

    def failure(self) -> Failure | None:
        """Return the failure of a node; this is called often."""

    def stop(self) -> None:
        """Stop them."""


def choose_layout(processes: int, nodes: int, work: Path) -> Layout:
    """Return the distribution of a training over ``nodes``, as the first of them sees it.

    Raises:
        BadInput: More processes than GPUs are requested.
    """
    if is_pod() and nodes > 1:
        return Layout(count(processes, work), nodes, 0, layouts.pod_address())
    if nodes == 1:
        return Layout(count(processes, work))
    gpus = _num_gpus(work)
    if gpus and max(processes, 1) * nodes > gpus:
        print(
            f"warning: {gpus} GPUs are not enough for {nodes} nodes; training on one (same training steps, slower)",
            flush=True,
        )
        return Layout(count(processes, work))
    return Layout(processes or max(1, gpus // nodes), nodes)


def count(requested: int, work: Path) -> int:
    """Return the number of processes: as requested, or for 0 one per GPU, or one on a CPU.

    Raises:
        BadInput: More processes than GPUs are requested.
    """
    gpus = _num_gpus(work) if requested != 1 else 0
    if gpus and requested > gpus:
        raise BadInput(f"processes={requested} exceeds the number of GPUs ({gpus})", "use 0 for one process per GPU")
    return requested or max(1, gpus)


def _num_gpus(work: Path) -> int:
    return len(machine.read(work).gpus) if machine.is_torch_built_with_cuda() else 0


def run(
    worker: str,
    settings: Options,
    layout: Layout,
    result_type: type[R],
    other_nodes: OtherNodes | None = None,
    *,
    oom_retries: int = 0,
    restarts: int = 0,
) -> R:
    """Run the module ``worker`` in one process per rank of this machine and return the result of rank 0.

    Args:
        worker: Module of a rank.
        settings: Settings of the ranks.
        layout: Distribution of the ranks.
        result_type: Type of the result.
        other_nodes: Nodes that run elsewhere; None: all ranks are on this machine.
        oom_retries: Number of restarts due to lack of memory.
        restarts: Maximum number of further restarts after a node was lost.

    Raises:
        StepError: The error of the first rank that failed.
        SystemExit: 143 after SIGTERM.
    """
    with tempfile.TemporaryDirectory(prefix="argotune-") as name:
        folder = Path(name)
        (folder / SETTINGS).write_bytes(settings.model_dump_json(by_alias=True).encode())
        failure, stopped = _run_once(worker, folder, layout, oom_retries, other_nodes)
        if failure is None and (folder / RESULT).exists():
            result = json.loads((folder / RESULT).read_text())
            return pydantic.TypeAdapter(result_type).validate_python(result)
    if failure is None and (stopped or other_nodes is None or not layout.is_first):
        sys.exit(TERMINATED)
    error = _error(failure, layout, has_other_nodes=other_nodes is not None)
    if isinstance(error, NodeLost) and layout.is_first:
        if restarts == 0:
            raise StepError(error.message, "run the step again; it resumes from its last checkpoint")
        print(f"warning: {error.message}; restarting all nodes from the last checkpoint", flush=True)
        restarts -= 1
    elif error:
        raise error
    else:
        oom_retries += 1
    return run(worker, settings, layout, result_type, other_nodes, oom_retries=oom_retries, restarts=restarts)


def _error(failure: Failure | None, layout: Layout, *, has_other_nodes: bool) -> StepError | None:
    """Return the error that ends this node; None: the first node restarts all with smaller batches."""
    if failure is None:
        return NodeLost("another node was stopped")
    if failure.error is None and not layout.is_first:
        return NodeOutOfMemory("out of memory", "no action: the first node restarts all with smaller batches")
    if failure.error and not failure.is_root_cause and has_other_nodes:
        return NodeLost(f"the connection to another node was lost ({failure.error.message})")
    return failure.error


class _Stopped(StepError):
    exit_code = TERMINATED


class _Worker:
    """Process of one rank."""

    def __init__(self, module: str, folder: Path, rank: int, layout: Layout, oom_retries: int) -> None:
        self.rank, self.world_size, self.folder = rank, layout.world_size, folder
        self.log = folder / f"log-{rank}.txt"
        # Only the first rank of a machine logs.
        quiet = rank != layout.ranks.start and not os.environ.get("ARGOTUNE_DEBUG")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), str(oom_retries)],
                env=_environment(rank, layout),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else None,
                stderr=log if quiet else None,
                preexec_fn=lifetime.die_with_parent(os.getpid()),
            )

    def failure(self, code: int, stopping: bool) -> Failure | None:
        """Return the failure for an exit code; None if there is none."""
        if code == 0 or code == TERMINATED:
            return None
        if failure_file(self.folder, self.rank).exists():
            content = json.loads(failure_file(self.folder, self.rank).read_text())
            if content.get("out_of_memory"):
                return Failure(None)
            kind = getattr(errors, content["kind"], StepError)
            return Failure(kind(content["message"], content["fix"]), content["is_root_cause"])
        if stopping and code == -signal.SIGTERM:
            return Failure(_Stopped("stopped by SIGTERM before the training began", "run the step again"))
        return Failure(self._exit_error(code))

    def _exit_error(self, code: int) -> StepError:
        rank = f"rank {self.rank} of {self.world_size}"
        fix = "run the step again; it resumes from its last checkpoint"
        if code == -signal.SIGKILL:
            return StepError(f"{rank} was killed by SIGKILL (possibly out of memory)", fix)
        reason = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return StepError(f"{rank} {reason}{f': {last_line}' if last_line else ''}", fix)


def _run_once(
    module: str, folder: Path, layout: Layout, oom_retries: int, other_nodes: OtherNodes | None
) -> tuple[Failure | None, bool]:
    """Return the failure of an attempt, and True if this process was stopped by SIGTERM."""
    workers: list[_Worker] = []
    layout = layout.with_free_port() if layout.is_first else layout
    # A second SIGTERM while the other nodes are stopped must not end this process before.
    with _forward_sigterm(workers) as signals:
        try:
            for rank in layout.ranks:
                workers.append(_Worker(module, folder, rank, layout, oom_retries))
            for number in signals:  # received before all workers were started
                _send(workers, number)
            if other_nodes:
                other_nodes.start(layout, oom_retries)
            return _wait(workers, signals, other_nodes), bool(signals)
        finally:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.wait()
            if other_nodes:
                other_nodes.stop()


def _wait(workers: Sequence[_Worker], signals: list[int], other_nodes: OtherNodes | None) -> Failure | None:
    """Wait until all workers have ended or a root cause is known."""
    alive = list(workers)
    timeout = OTHER_NODES_TIMEOUT_SECONDS if other_nodes else ROOT_CAUSE_TIMEOUT_SECONDS
    consequence: Failure | None = None
    deadline = 0.0
    while alive or (consequence and other_nodes):
        if consequence and time.monotonic() > deadline:
            break
        for worker in list(alive):
            code = worker.process.poll()
            if code is None:
                continue
            alive.remove(worker)
            failure = worker.failure(code, bool(signals))
            if failure and failure.is_root_cause:
                return failure
            if failure and not consequence:
                consequence, deadline = failure, time.monotonic() + timeout
        failure = other_nodes.failure() if other_nodes and not signals else None
        if failure and failure.is_root_cause:
            return failure
        if failure and not consequence:
            consequence, deadline = failure, time.monotonic() + timeout
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


def _environment(rank: int, layout: Layout) -> dict[str, str]:
    """Return the variables that torch.distributed.run sets for torch, accelerate and transformers."""
    distributed = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank - layout.ranks.start),
        "WORLD_SIZE": str(layout.world_size),
        "LOCAL_WORLD_SIZE": str(len(layout.ranks)),
        "GROUP_WORLD_SIZE": str(layout.nodes),
    }
    if layout.nodes > 1:
        distributed |= {"MASTER_ADDR": layout.host, "MASTER_PORT": str(layout.port)}
    threads = max(1, machine.cores() // len(layout.ranks))
    defaults = {"OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux" and layout.node is None:
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # all ranks are on this machine, whose hostname may not resolve
    environment = {**defaults, **os.environ, **distributed}
    if rank > 0:
        environment.pop(progress.FILE_VARIABLE, None)
    return environment
