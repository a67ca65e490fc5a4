"""The process group of a training, as seen from one rank.

``launcher.py`` starts the ranks. For a training in one process, nothing here has an effect. The ranks of one node
share a directory; rank 0 sends other nodes what they need (``rank_store.py``).
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
from steps.tune.rank_store import RankStore

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
    """Directory shared by the ranks of a machine; None for a single process."""
    oom_retries: int = 0
    """Number of restarts due to lack of memory."""
    emulated_world_size: int = 0
    """World size that a single process emulates with its batch size; 0: none."""
    nodes: int = 1
    local_rank: int = 0
    """Number of the rank on its machine, and of its GPU."""
    store: RankStore | None = None
    """Connection to rank 0's node; None for a single node."""

    @property
    def effective_world_size(self) -> int:
        """Global batch size divided by the batch size of a process; more nodes do not change the batch."""
        return self.emulated_world_size or self.processes_per_node

    @property
    def processes_per_node(self) -> int:
        """Number of ranks of each node."""
        return self.size // self.nodes

    @property
    def node(self) -> int:
        """Number of this rank's node; node 0 has the work directory."""
        return self.rank // self.processes_per_node

    @property
    def is_rank_zero(self) -> bool:
        """True for the rank that writes the curve, progress, checkpoint markers, adapter and result."""
        return self.rank == 0

    def on_rank_zero(self, name: str, function: Callable[[], T]) -> T:
        """Call the function on rank 0 only, and return its result on all ranks. There is no timeout."""
        if self.store is None:
            return self.on_each_node(name, function)
        store = self.store
        if self.node > 0:
            received: T = self.on_each_node(name, lambda: store.receive(name))
            return received

        def call_and_send() -> T:
            result = function()
            store.send(name, result)
            return result

        return self.on_each_node(name, call_and_send)

    def on_each_node(self, name: str, function: Callable[[], T]) -> T:
        """Call the function on the first rank of each node, and return its result on all ranks of the node."""
        if self.folder is None:
            return function()
        file = self.folder / f"{name}-{self.node}.pickle"
        if self.rank % self.processes_per_node == 0:
            result = function()
            with files.replacing(file) as opened:
                pickle.dump(result, opened)
            return result
        while not file.exists():
            time.sleep(POLL_SECONDS)
        received: T = pickle.loads(file.read_bytes())
        return received

    def copy_to_nodes(self, name: str, folder: Path, target: Path) -> Path:
        """Return the directory of rank 0 on its node; on the others ``target``, with a copy of its files."""
        if self.store is None:
            return folder
        store = self.store
        if self.node == 0:
            if self.is_rank_zero:
                store.send_folder(name, folder)
            return folder
        self.on_each_node(name, lambda: store.receive_folder(name, target))
        return target

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
            if (num_gpus := torch.cuda.device_count()) <= self.local_rank:
                raise StepError(
                    f"torch sees {num_gpus} GPUs for {self.processes_per_node} processes",
                    "check the GPUs with nvidia-smi, or set CUDA_VISIBLE_DEVICES",
                )
            torch.cuda.set_device(self.local_rank)
        if self.store:
            self.store.wait_for_all("start")  # nodes can take long to fetch the base model
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=None if self.store else (self.folder / "rendezvous").as_uri(),
            store=dist.PrefixStore("group", self.store.store) if self.store else None,
            rank=self.rank,
            world_size=self.size,
            timeout=TIMEOUT,
            device_id=torch.device("cuda", self.local_rank) if device == "cuda" else None,
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

    def gather_from_nodes(self, value: T | None) -> list[T]:
        """Return the values of all ranks that have one, on all ranks. All ranks must call this at the same point."""
        import torch.distributed as dist

        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return [gathered for gathered in values if gathered is not None]

    def destroy_process_group(self) -> None:
        """Disconnect from the other ranks, if connected."""
        if self.store:
            self.store.leave()
        if self.size > 1 and "torch" in sys.modules:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()


ALONE = DistributedContext()


def main(settings_type: type[S], work: Callable[[S, DistributedContext], Any], name: str) -> NoReturn:
    """Run one rank; write its result or failure to the shared directory, for the launcher."""
    folder = Path(sys.argv[1])
    group = _context(folder, oom_retries=int(sys.argv[2]))
    try:
        settings = settings_type.model_validate_json((folder / SETTINGS).read_bytes())
        group = _connect(group)
        result = work(settings, group)
        if group.local_rank == 0:
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


def _context(folder: Path, oom_retries: int) -> DistributedContext:
    """Return the context of this process, from the variables that the launcher sets."""
    rank, size, local_rank, nodes = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_WORLD_SIZE")
    )
    return DistributedContext(rank, size, folder, oom_retries=oom_retries, nodes=nodes, local_rank=local_rank)


def _connect(group: DistributedContext) -> DistributedContext:
    """Return the context, connected to rank 0's node if there are several."""
    if group.nodes == 1:
        return group
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dataclasses.replace(group, store=RankStore(host, port, group.rank, group.size, group.nodes))


def failure_file(folder: Path, rank: int) -> Path:
    """Return the file to which a rank writes its failure."""
    return folder / f"failure-{rank}.json"


def _exit(code: int) -> NoReturn:
    """Exit without the interpreter's shutdown, which hangs in threads that wait for lost ranks."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
