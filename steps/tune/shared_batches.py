"""Data-parallel batches: all ranks together learn from the rows that one process would.

The global batch size is ``per_device_train_batch_size`` x ``gradient_accumulation_steps`` x world size, as in KAITO.
It is fixed for a training: if it resumes with another world size, each rank takes more or fewer rows. The order of
rows depends on the global batch size only, and the loss is a mean over its tokens, so the loss curve is that of one
process with the same global batch size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import cycle, islice, repeat
from typing import Any

from steps.data.chat_tokens import IGNORED

BATCH_SIZE, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
BLANK_TOKENS = 2
"""Length of a blank row: the shortest that a causal loss accepts; its labels are ignored."""


def compute_global_batch_size(arguments: Mapping[str, Any], processes: int) -> int:
    """Return the number of rows per optimizer step over all processes."""
    return int(arguments[BATCH_SIZE]) * int(arguments.get(ACCUMULATION, 1)) * processes


def split_batch(arguments: Mapping[str, Any], global_batch_size: int, processes: int) -> dict[str, Any]:
    """Return the training arguments with batch size and accumulation of one rank; the batch size never grows."""
    rows = math.ceil(global_batch_size / processes)
    accumulation = math.ceil(rows / int(arguments[BATCH_SIZE]))
    return {**arguments, BATCH_SIZE: math.ceil(rows / accumulation), ACCUMULATION: accumulation}


def samples_per_rank(rows: int, arguments: Mapping[str, Any], global_batch_size: int, processes: int) -> int:
    """Return the number of rows, blank rows included, that a rank sees in an epoch."""
    if processes == 1:
        return rows
    return sum(_step_sizes(rows, arguments, global_batch_size, processes)) // processes


def shard_sampler(trainer: Any, global_batch_size: int, rows: int) -> None:
    """Make each rank sample its shard of the rows, reproducibly when a run is resumed.

    Steps that cannot be split evenly (the last of an epoch, or after a change of the world size) are filled with blank
    rows whose labels are ignored. Pairs of answers have no labels, so some are repeated instead, as the library does.
    """
    import torch

    from steps.tune.training_callbacks import attach

    arguments = trainer.args
    processes = arguments.world_size
    if processes == 1:
        return
    batch = {
        BATCH_SIZE: arguments.per_device_train_batch_size,
        ACCUMULATION: arguments.gradient_accumulation_steps,
        "dataloader_drop_last": arguments.dataloader_drop_last,
    }
    step_sizes = _step_sizes(rows, batch, global_batch_size, processes)
    order = _row_order(trainer, global_batch_size, rows)
    torch.manual_seed(arguments.seed + arguments.process_index)  # different dropout on each rank
    has_labels = "labels" in trainer.train_dataset.column_names
    sampler = _sampler(order, global_batch_size, step_sizes, blank=rows if has_labels else None)
    if has_labels:
        trainer.train_dataset = _with_blank(trainer.train_dataset, sum(step_sizes))
    trainer._get_train_sampler = lambda *_: sampler
    attach(trainer, _EpochSetter(order))


class _EpochSetter:
    """Callback that sets the epoch of a row order: the library does not in a resumed epoch."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch that starts or resumes."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(int(state.epoch or 0))


def _step_sizes(rows: int, arguments: Mapping[str, Any], global_batch_size: int, processes: int) -> list[int]:
    """Return the rows of each step of an epoch, blank rows included, so that all ranks get batches of one size."""
    micro_batch = int(arguments[BATCH_SIZE]) * processes
    full_steps, rest = divmod(rows, global_batch_size)
    accumulation = rest // micro_batch if arguments.get("dataloader_drop_last") else math.ceil(rest / micro_batch)
    last_step = [accumulation * micro_batch] * bool(accumulation)
    return [compute_global_batch_size(arguments, processes)] * full_steps + last_step


def _row_order(trainer: Any, global_batch_size: int, rows: int) -> Any:
    """Return the sampler that one process would use."""
    from accelerate.data_loader import SeedableRandomSampler
    from torch.utils.data import RandomSampler
    from transformers.trainer_pt_utils import LengthGroupedSampler

    order = trainer._get_train_sampler()
    if isinstance(order, RandomSampler):
        seed = trainer.args.seed if trainer.args.data_seed is None else trainer.args.data_seed
        return SeedableRandomSampler(range(rows), data_seed=seed)
    if isinstance(order, LengthGroupedSampler):
        order.batch_size = global_batch_size
    return order


def _sampler(order: Any, global_batch_size: int, step_sizes: list[int], blank: int | None) -> Any:
    from torch.utils.data import Sampler

    class Padded(Sampler[int]):
        """The rows of each step, padded with ``blank``, or with the epoch's first rows if it is None."""

        def __len__(self) -> int:
            return sum(step_sizes)

        def __iter__(self) -> Iterator[int]:
            indices = list(order)
            padding = cycle(indices) if blank is None else repeat(blank)
            for step, size in enumerate(step_sizes):
                rows = indices[step * global_batch_size : (step + 1) * global_batch_size][:size]
                yield from rows
                yield from islice(padding, size - len(rows))

        def set_epoch(self, epoch: int) -> None:
            if hasattr(order, "set_epoch"):
                order.set_epoch(epoch)

    return Padded()


def _with_blank(rows: Any, epoch_size: int) -> Any:
    """Return the rows and, after them, a blank row with ignored labels."""
    from torch.utils.data import Dataset

    first = rows[0]
    tokens = first["input_ids"][:BLANK_TOKENS]
    blank = {"input_ids": tokens, "labels": [IGNORED] * len(tokens)}
    if "seq_lengths" in first:
        blank["seq_lengths"] = [len(tokens)]

    class WithBlank(Dataset[Any]):
        total_dataset_length = epoch_size
        """Accelerate treats rows beyond this length as repeated."""

        def __len__(self) -> int:
            return len(rows) + 1

        def __getitem__(self, idx: int) -> Any:
            return blank if idx == len(rows) else rows[idx]

    return WithBlank()
