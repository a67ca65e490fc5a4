"""A training that does not fit the device's memory goes on with less at a time, and learns the same.

On a GPU the first thing to try is gradient checkpointing, which computes again what it would hold; then the batch is
taken in smaller and smaller pieces. Neither is done before memory asks for it, for both take time.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from steps.models.model import choose_device
from steps.runtime.errors import InsufficientCapacity
from steps.tune.process_group import ALONE, DistributedContext, OutOfMemory
from steps.tune.shared_batches import ACCUMULATION, BATCH_SIZE
from steps.tune.training_config import TrainingConfig

T = TypeVar("T")
CHECKPOINTING = "gradient_checkpointing"


def with_oom_backoff(
    config: TrainingConfig, method: str, train: Callable[[TrainingConfig], T], group: DistributedContext = ALONE
) -> T:
    """What ``train`` gives; called again with less at a time whenever the memory is too small.

    The gradients of the pieces are added up, so the batch that a step learns from, and the loss curve, stay the same.
    One of several processes can't begin anew by itself: the others wait for it in the middle of a step.

    Raises:
        InsufficientCapacity: not even a single row fits.
        OutOfMemory: the memory is too small for one of several processes.
    """
    for _ in range(group.oom_retries):
        config = _reduce_memory(config, method)
    while True:
        try:
            return train(config)
        except (MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            if group.size > 1:
                raise OutOfMemory from error
            config = _reduce_memory(config, method)
        _free()  # only here: the error's traceback holds on to the tensors of the attempt


def _reduce_memory(config: TrainingConfig, method: str) -> TrainingConfig:
    smaller = _enable_checkpointing(config) or _halved(config)
    if smaller is None:
        raise InsufficientCapacity(
            "the device's memory is too small for this training, even with one row at a time",
            f"lower max_length (now {config.arguments['max_length']})"
            + (", or use method qlora" if method == "lora" else ""),
        ) from None
    print(_told(config, smaller), flush=True)
    return smaller


def _is_short_of_memory(error: Exception) -> bool:
    import torch

    # The processor's allocator has no error class of its own, and what connects GPUs tells CUDA's words.
    told = ("can't allocate memory", "CUDA error: out of memory", "Cuda failure 2 'out of memory'")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in told)


def _enable_checkpointing(config: TrainingConfig) -> TrainingConfig | None:
    """With gradient checkpointing, unless that was decided already; on a processor it takes four times as long."""
    if choose_device() != "cuda" or CHECKPOINTING in config.arguments:
        return None
    return replace(config, arguments={**config.arguments, CHECKPOINTING: True})


def _halved(config: TrainingConfig) -> TrainingConfig | None:
    rows = int(config.arguments[BATCH_SIZE])
    fewer = max((count for count in range(1, rows // 2 + 1) if rows % count == 0), default=None)
    if fewer is None:
        return None
    pieces = int(config.arguments.get(ACCUMULATION, 1)) * (rows // fewer)
    return replace(config, arguments={**config.arguments, BATCH_SIZE: fewer, ACCUMULATION: pieces})


def _told(before: TrainingConfig, after: TrainingConfig) -> str:
    rows: Any = after.arguments[BATCH_SIZE]
    if rows == before.arguments[BATCH_SIZE]:
        return (
            "warning: what training holds does not fit the device's memory; going on with gradient_checkpointing, "
            "which computes a part of it again: the same training, about a third more slowly"
        )
    return (
        f"warning: {before.arguments[BATCH_SIZE]} rows at a time do not fit the device's memory; going on with {rows} "
        f"at a time, {after.arguments[ACCUMULATION]} times for one step: the same batch, more slowly"
    )


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
