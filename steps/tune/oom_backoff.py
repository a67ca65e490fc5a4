"""Retries of a training that runs out of memory, with less memory and the same result.

On a GPU the first retry turns on gradient checkpointing; later ones reduce the per-device batch size and increase
gradient accumulation. Both cost time, so neither is used before memory runs out.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
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
    """Return the result of ``train``, retried with less memory while it runs out.

    The global batch size, and so the loss curve, stays the same. A rank cannot retry alone, since the others wait for
    it in the middle of a step: it raises ``OutOfMemory``, and the launcher restarts all.

    Raises:
        InsufficientCapacity: Even a batch size of 1 does not fit.
        OutOfMemory: One of several ranks is out of memory.
    """
    for _ in range(group.oom_retries):
        config = _reduce_memory(config, method)
    for attempt in _ever_smaller(config, method):
        try:
            return train(attempt)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if group.size > 1:
                raise OutOfMemory from error
        _free_memory()  # after the except block, since the traceback references the attempt's tensors
    raise AssertionError("_ever_smaller ends by raising")


def _ever_smaller(config: TrainingConfig, method: str) -> Iterator[TrainingConfig]:
    """Yield the config, then one with less memory each time.

    Raises:
        InsufficientCapacity: Even a batch size of 1 does not fit.
    """
    yield config
    yield from _ever_smaller(_reduce_memory(config, method), method)


def _reduce_memory(config: TrainingConfig, method: str) -> TrainingConfig:
    smaller = _enable_checkpointing(config) or _halve_batch(config)
    if smaller is None:
        raise InsufficientCapacity(
            "out of memory with a per-device batch size of 1",
            f"reduce max_length (now {config.arguments['max_length']})"
            + (", or use method qlora" if method == "lora" else ""),
        ) from None
    print(_retry_message(config, smaller), flush=True)
    return smaller


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # The CPU allocator has no error class, and NCCL raises CUDA's message.
    messages = ("can't allocate memory", "CUDA error: out of memory", "Cuda failure 2 'out of memory'")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in messages)


def _enable_checkpointing(config: TrainingConfig) -> TrainingConfig | None:
    """With gradient checkpointing, unless that was decided already; on a processor it takes four times as long."""
    if choose_device() != "cuda" or CHECKPOINTING in config.arguments:
        return None
    return replace(config, arguments={**config.arguments, CHECKPOINTING: True})


def _halve_batch(config: TrainingConfig) -> TrainingConfig | None:
    """Return a config with the largest divisor of the batch size up to its half; None if the batch size is 1."""
    batch_size = int(config.arguments[BATCH_SIZE])
    smaller = max((size for size in range(1, batch_size // 2 + 1) if batch_size % size == 0), default=None)
    if smaller is None:
        return None
    accumulation = int(config.arguments.get(ACCUMULATION, 1)) * (batch_size // smaller)
    return replace(config, arguments={**config.arguments, BATCH_SIZE: smaller, ACCUMULATION: accumulation})


def _retry_message(before: TrainingConfig, after: TrainingConfig) -> str:
    batch_size: Any = after.arguments[BATCH_SIZE]
    if batch_size == before.arguments[BATCH_SIZE]:
        return "warning: out of memory; retrying with gradient_checkpointing (same training, about a third slower)"
    return (
        f"warning: out of memory with {BATCH_SIZE}={before.arguments[BATCH_SIZE]}; retrying with {batch_size} and "
        f"{ACCUMULATION}={after.arguments[ACCUMULATION]} (same training, slower)"
    )


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
