"""The process group of a training, as seen from one rank.

``launcher.py`` starts the ranks. For a training in one process, nothing here has an effect.
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
"""Timeout of collectives; anything slow runs before the process group is initialized."""


class OutOfMemory(Exception):
    """A rank is out of memory; all ranks must restart with smaller batches."""


@dataclass(frozen=True)
class DistributedContext:
    """Rank and size of the process group."""

    rank: int = 0
    size: int = 1
    folder: Path | None = None
    """Directory shared by the ranks; None for a single process."""
    oom_retries: int = 0
    """Number of restarts due to lack of memory."""
    emulated_world_size: int = 0
    """World size that a single process emulates with its batch size; 0: none."""

    @property
    def effective_world_size(self) -> int:
        """Global batch size divided by the batch size of a process."""
        return self.emulated_world_size or self.size

    @property
    def is_rank_zero(self) -> bool:
        """True for the rank that writes the curve, progress, checkpoint markers, adapter and result."""
        return self.rank == 0

    def on_rank_zero(self, name: str, function: Callable[[], T]) -> T:
        """Call the function on rank 0 only, and return its result on all ranks. There is no timeout."""
        if self.folder is None:
            return function()
        file = self.folder / f"{name}.pickle"
        if self.is_rank_zero:
            result = function()
            with files.replacing(file) as opened:
                pickle.dump(result, opened)
            return result
        while not file.exists():
            time.sleep(POLL_SECONDS)
        received: T = pickle.loads(file.read_bytes())
        return received

    def init_process_group(self, device: str) -> None:
        """Connect to the other ranks, with NCCL between GPUs and gloo between CPUs.

        Raises:
            StepError: torch sees fewer GPUs than there are ranks.
        """
        import torch
        import torch.distributed as dist

        if self.folder is None or dist.is_initialized():
            return
        if device == "cuda":
            if (num_gpus := torch.cuda.device_count()) < self.size:
                raise StepError(
                    f"torch sees {num_gpus} GPUs for {self.size} processes",
                    "check the GPUs with nvidia-smi, or set CUDA_VISIBLE_DEVICES",
                )
            torch.cuda.set_device(self.rank)
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=(self.folder / "rendezvous").as_uri(),
            rank=self.rank,
            world_size=self.size,
            timeout=TIMEOUT,
            device_id=torch.device("cuda", self.rank) if device == "cuda" else None,
        )

    def all_reduce_any(self, *flags: bool) -> list[bool]:
        """Return for each flag if it is set on any rank. All ranks must call this at the same point."""
        if self.size == 1:
            return list(flags)
        import torch
        import torch.distributed as dist

        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in tensor.tolist()]

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            import torch.distributed as dist

            dist.barrier()

    def destroy_process_group(self) -> None:
        """Disconnect from the other ranks, if connected."""
        if self.size > 1 and "torch" in sys.modules:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()


ALONE = DistributedContext()


def main(settings_type: type[S], work: Callable[[S, DistributedContext], Any], name: str) -> NoReturn:
    """Run one rank; write its result or failure to the shared directory, for the launcher."""
    folder = Path(sys.argv[1])
    group = DistributedContext(
        int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), folder, oom_retries=int(sys.argv[2])
    )
    try:
        settings = settings_type.model_validate_json((folder / SETTINGS).read_bytes())
        result = work(settings, group)
        if group.is_rank_zero:
            files.write_json(folder / RESULT, dataclasses.asdict(result))
        group.destroy_process_group()
    except KeyboardInterrupt:
        _exit(130)
    except SystemExit as error:
        group.destroy_process_group()
        _exit(error.code if isinstance(error.code, int) else 1)
    except OutOfMemory:
        files.write_json(failure_file(folder, group.rank), {"out_of_memory": True})
        _exit(1)
    except Exception as error:
        failure = entrypoint.as_step_error(name, error)
        content = {"kind": type(failure).__name__, "message": failure.message, "fix": failure.fix}
        # Other errors can be consequences, such as a lost connection to a failed rank.
        files.write_json(failure_file(folder, group.rank), content | {"is_root_cause": isinstance(error, StepError)})
        _exit(1)
    _exit(0)


def failure_file(folder: Path, rank: int) -> Path:
    """Return the file to which a rank writes its failure."""
    return folder / f"failure-{rank}.json"


def _exit(code: int) -> NoReturn:
    """Exit without the interpreter's shutdown, which hangs in threads that wait for lost ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
