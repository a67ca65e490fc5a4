"""How the processes of a training share the rows of a step: together they learn from what one alone would.

A step learns from ``per_device_train_batch_size`` x ``gradient_accumulation_steps`` x processes rows, as the names say
and as with KAITO. How many rows that is stays with a training: where it goes on with another number of processes, each
gets more or fewer of them. Order and steps depend on the rows of a step alone, and the loss is a mean over their
tokens, so the loss curve is that of one process which takes as many rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import cycle, islice, repeat
from typing import Any

from steps.data.chat_tokens import IGNORED

BATCH_SIZE, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
BLANK_TOKENS = 2
"""One to learn from and one to learn, as any row has; its label says that it isn't learned."""


def compute_global_batch_size(arguments: Mapping[str, Any], processes: int) -> int:
    """Rows that a step learns from."""
    return int(arguments[BATCH_SIZE]) * int(arguments.get(ACCUMULATION, 1)) * processes


def split_batch(arguments: Mapping[str, Any], rows: int, processes: int) -> dict[str, Any]:
    """Training arguments with which so many processes learn from ``rows`` a step, with no more at once than before."""
    share = math.ceil(rows / processes)
    times = math.ceil(share / int(arguments[BATCH_SIZE]))
    return {**arguments, BATCH_SIZE: math.ceil(share / times), ACCUMULATION: times}


def samples_per_rank(rows: int, arguments: Mapping[str, Any], global_batch_size: int, processes: int) -> int:
    """How many of all rows, blank ones included, a process sees in an epoch."""
    if processes == 1:
        return rows
    return sum(_places(rows, arguments, global_batch_size, processes)) // processes


def shard_sampler(trainer: Any, global_batch_size: int, rows: int) -> None:
    """Give each process of a training its share of the ``rows``, which is the same again after a resume.

    Where they can't be divided evenly (the last step of an epoch, or steps of a training that other processes began),
    blank rows are put in, from which nothing is learned. Of pairs of answers, which have no labels to leave out, some
    are taken twice instead, as the library does it.
    """
    import torch

    from steps.tune.training_callbacks import attach

    arguments = trainer.args
    processes = arguments.world_size
    if processes == 1:
        return
    known = {BATCH_SIZE: arguments.per_device_train_batch_size, ACCUMULATION: arguments.gradient_accumulation_steps}
    places = _places(
        rows, known | {"dataloader_drop_last": arguments.dataloader_drop_last}, global_batch_size, processes
    )
    order = _order(trainer, global_batch_size, rows)
    torch.manual_seed(arguments.seed + arguments.process_index)  # or all would leave out the same by dropout
    blanks = "labels" in trainer.train_dataset.column_names
    sampler = _sampler(order, global_batch_size, places, blank=rows if blanks else None)
    if blanks:
        trainer.train_dataset = _with_blank(trainer.train_dataset, sum(places))
    trainer._get_train_sampler = lambda *_: sampler
    attach(trainer, _Epochs(order))


class _Epochs:
    """Tells an order of rows which epoch it is: the library's way to it is cut off in an epoch that is resumed."""

    def __init__(self, order: Any) -> None:
        self.order = order

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch that begins, or that is gone on with."""
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(int(state.epoch or 0))


def _places(rows: int, arguments: Mapping[str, Any], global_batch_size: int, processes: int) -> list[int]:
    """For each step of an epoch, for how many rows there is room, so that each process gets batches of one size."""
    at_a_time = int(arguments[BATCH_SIZE]) * processes
    whole, rest = divmod(rows, global_batch_size)
    times = rest // at_a_time if arguments.get("dataloader_drop_last") else math.ceil(rest / at_a_time)
    return [compute_global_batch_size(arguments, processes)] * whole + [times * at_a_time] * bool(times)


def _order(trainer: Any, global_batch_size: int, rows: int) -> Any:
    """The order of the rows that one process would have."""
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


def _sampler(order: Any, global_batch_size: int, places: list[int], blank: int | None) -> Any:
    from torch.utils.data import Sampler

    class Shared(Sampler[int]):
        """The rows of each step, then what fills the room that is left: ``blank``, or the epoch's first rows."""

        def __len__(self) -> int:
            return sum(places)

        def __iter__(self) -> Iterator[int]:
            numbers = list(order)
            filling = cycle(numbers) if blank is None else repeat(blank)
            for step, room in enumerate(places):
                given = numbers[step * global_batch_size : (step + 1) * global_batch_size][:room]
                yield from given
                yield from islice(filling, room - len(given))

        def set_epoch(self, epoch: int) -> None:
            if hasattr(order, "set_epoch"):
                order.set_epoch(epoch)

    return Shared()


def _with_blank(rows: Any, places: int) -> Any:
    """The rows, and one after them with nothing to learn."""
    from torch.utils.data import Dataset

    first = rows[0]
    tokens = first["input_ids"][:BLANK_TOKENS]
    blank = {"input_ids": tokens, "labels": [IGNORED] * len(tokens)}
    if "seq_lengths" in first:
        blank["seq_lengths"] = [len(tokens)]

    class WithBlank(Dataset[Any]):
        total_dataset_length = places
        """Accelerate takes what is beyond a whole number of batches for rows given twice."""

        def __len__(self) -> int:
            return len(rows) + 1

        def __getitem__(self, number: int) -> Any:
            return blank if number == len(rows) else rows[number]

    return WithBlank()
