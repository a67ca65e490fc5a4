"""A training whose batch does not fit the device's memory goes on with smaller pieces of the same batch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from steps.errors import NoCapacity
from steps.training_config import TrainingConfig

T = TypeVar("T")
ROWS, PIECES = "per_device_train_batch_size", "gradient_accumulation_steps"


def within_memory(config: TrainingConfig, method: str, train: Callable[[TrainingConfig], T]) -> T:
    """What ``train`` gives; called again with half the rows at a time whenever the memory is too small.

    The gradients of the pieces are added up, so the batch that a step learns from, and the loss curve, stay the same.

    Raises:
        NoCapacity: not even a single row fits.
    """
    while True:
        try:
            return train(config)
        except (MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            smaller = _halved(config)
            if smaller is None:
                raise NoCapacity(
                    "the device's memory is too small for this training, even with one row at a time",
                    f"lower max_length (now {config.arguments['max_length']})"
                    + (", or use method qlora" if method == "lora" else ""),
                ) from None
            print(_told(config, smaller), flush=True)
            config = smaller
        _free()  # only here: the error's traceback holds on to the tensors of the attempt


def _is_short_of_memory(error: Exception) -> bool:
    import torch

    # The processor's allocator has no error class of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _halved(config: TrainingConfig) -> TrainingConfig | None:
    rows = int(config.arguments[ROWS])
    fewer = max((count for count in range(1, rows // 2 + 1) if rows % count == 0), default=None)
    if fewer is None:
        return None
    pieces = int(config.arguments.get(PIECES, 1)) * (rows // fewer)
    return replace(config, arguments={**config.arguments, ROWS: fewer, PIECES: pieces})


def _told(before: TrainingConfig, after: TrainingConfig) -> str:
    rows: Any = after.arguments[ROWS]
    return (
        f"warning: {before.arguments[ROWS]} rows at a time do not fit the device's memory; going on with {rows} at a "
        f"time, {after.arguments[PIECES]} times for one step: the same batch, more slowly"
    )


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
