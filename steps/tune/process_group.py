"""The processes that train together, seen from one of them: its place, what the first makes for all, what all decide.

``processes.py`` starts them. A training in one process is a group of one, for which nothing here does anything.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from steps.runtime import entrypoint, files
from steps.runtime.errors import StepError
from steps.runtime.options import Options

T = TypeVar("T")
S = TypeVar("S", bound=Options)

SETTINGS, RESULT = "settings.json", "result.json"
POLL_SECONDS = 0.05
TIMEOUT = datetime.timedelta(minutes=30)
"""After which torch takes a process that others wait for as lost; what takes long is done before they meet."""


class OutOfMemory(Exception):
    """One of several processes is short of memory: all are to be started again with half of the rows at a time."""


@dataclass(frozen=True)
class DistributedContext:
    """The place of a process among those that train together."""

    rank: int = 0
    size: int = 1
    folder: Path | None = None
    """What they share, on this machine's disk; none for a process alone."""
    oom_retries: int = 0
    """How often memory was too short for the rows that were to be computed at a time."""
    emulated_world_size: int = 0
    """Processes whose rows one process learns from, because they could not."""

    @property
    def effective_world_size(self) -> int:
        """How many times a process's rows a step learns from."""
        return self.emulated_world_size or self.size

    @property
    def is_rank_zero(self) -> bool:
        """Whether it is the one that writes: curve, progress, marks of checkpoints, adapter, result."""
        return self.rank == 0

    def on_rank_zero(self, name: str, make: Callable[[], T]) -> T:
        """What the first process makes; the others wait until it has. It may take as long as it needs."""
        if self.folder is None:
            return make()
        file = self.folder / f"{name}.pickle"
        if self.is_rank_zero:
            made = make()
            with files.replacing(file) as opened:
                pickle.dump(made, opened)
            return made
        while not file.exists():
            time.sleep(POLL_SECONDS)
        told: T = pickle.loads(file.read_bytes())
        return told

    def init_process_group(self, device: str) -> None:
        """Connect with the other processes: NCCL between GPUs, gloo between processors.

        Raises:
            StepError: torch sees fewer GPUs than there are processes.
        """
        import torch
        import torch.distributed as together

        if self.folder is None or together.is_initialized():
            return
        if device == "cuda":
            if (seen := torch.cuda.device_count()) < self.size:
                raise StepError(
                    f"{self.size} processes were started, one for each GPU, and torch sees {seen} of them",
                    "check the GPUs with nvidia-smi, or set CUDA_VISIBLE_DEVICES",
                )
            torch.cuda.set_device(self.rank)
        together.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=(self.folder / "rendezvous").as_uri(),
            rank=self.rank,
            world_size=self.size,
            timeout=TIMEOUT,
            device_id=torch.device("cuda", self.rank) if device == "cuda" else None,
        )

    def all_reduce_any(self, *flags: bool) -> list[bool]:
        """Each flag: whether it is set in any process. All must ask at the same point."""
        if self.size == 1:
            return list(flags)
        import torch
        import torch.distributed as together

        device = "cuda" if together.get_backend() == "nccl" else "cpu"
        votes = torch.tensor(flags, dtype=torch.int32, device=device)
        together.all_reduce(votes, op=together.ReduceOp.MAX)
        return [bool(vote) for vote in votes.tolist()]

    def barrier(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            import torch.distributed as together

            together.barrier()

    def destroy_process_group(self) -> None:
        """Take leave of the others, where they have met."""
        if self.size > 1 and "torch" in sys.modules:
            import torch.distributed as together

            if together.is_initialized():
                together.destroy_process_group()


ALONE = DistributedContext()


def main(settings_type: type[S], work: Callable[[S, DistributedContext], Any], name: str) -> NoReturn:
    """Run one of several processes: what it comes to is left in their folder, for the process that started it."""
    folder = Path(sys.argv[1])
    group = DistributedContext(
        int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), folder, oom_retries=int(sys.argv[2])
    )
    try:
        given = settings_type.model_validate_json((folder / SETTINGS).read_bytes())
        result = work(given, group)
        if group.is_rank_zero:
            files.write_json(folder / RESULT, dataclasses.asdict(result))
        group.destroy_process_group()
    except KeyboardInterrupt:
        _end(130)
    except SystemExit as end:
        group.destroy_process_group()
        _end(end.code if isinstance(end.code, int) else 1)
    except OutOfMemory:
        files.write_json(failure_file(folder, group.rank), {"halve": True})
        _end(1)
    except Exception as error:
        cause = entrypoint.as_step_error(name, error)
        told = {"kind": type(cause).__name__, "message": cause.message, "fix": cause.fix}
        # The others may only have lost this one, or this one another: then somebody else knows better.
        files.write_json(failure_file(folder, group.rank), told | {"certain": isinstance(error, StepError)})
        _end(1)
    _end(0)


def failure_file(folder: Path, rank: int) -> Path:
    """Where a process says what it failed with."""
    return folder / f"ended-{rank}.json"


def _end(code: int) -> NoReturn:
    """End without the interpreter's farewell: threads that wait for lost processes would keep it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
