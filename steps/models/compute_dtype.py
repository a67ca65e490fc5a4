"""The dtype and the number of threads that a device computes in fastest.

The compute capability of a GPU determines its dtype. The flags of a CPU do not: with AVX-512 BF16 but without AMX,
bfloat16 products are up to twice as slow as float32 on one processor and several times as fast on another. So the time
of two matrix products decides, in the shapes of the model's MLP.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from steps.runtime import machine
from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json

ROWS = 256
"""Rows of the measured products: tokens of a small batch."""
MIN_SIZE, MAX_SIZE = 256, 1536
"""Limits on a side of the measured matrices: below, calls dominate the time; above, the measurement takes seconds."""
DEFAULT_SHAPE = (576, 1536)
"""Hidden and intermediate size of a model without a readable config.json."""
ROUNDS = 5
BUDGET_SECONDS = 0.3
"""No further round begins after this time; a CPU without bfloat16 instructions takes long."""
VARIABLE = "ARGOTUNE_COMPUTE_DTYPE"
"""Environment variable with the dtype for CPUs, for equal results on all machines: float32 or bfloat16."""
GIGA = 1e9


@dataclass(frozen=True)
class Measurement:
    """Speed of a CPU's matrix products, in GFLOP/s."""

    float32: float
    bfloat16: float

    @property
    def dtype(self) -> str:
        """The faster dtype; bfloat16, which takes half the memory, if both are equal."""
        return "bfloat16" if self.bfloat16 >= self.float32 else "float32"

    def __str__(self) -> str:
        return f"bfloat16 {self.bfloat16:.0f}, float32 {self.float32:.0f} GFLOP/s"


def compute_dtype(device: str, base: Path | None = None) -> str:
    """Return the dtype that a device computes in fastest.

    GPUs below compute capability 8.0 use float16.

    Args:
        device: ``cuda`` or ``cpu``.
        base: Directory of the model, whose shapes are measured on a CPU; None: shapes of a small model.

    Raises:
        BadInput: ARGOTUNE_COMPUTE_DTYPE is set to another value than float32 or bfloat16.
    """
    if device == "cuda":
        import torch

        return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"
    return _configured() or measure(model_shape(base)).dtype


def _configured() -> str:
    dtype = os.environ.get(VARIABLE, "")
    if dtype not in ("", "float32", "bfloat16"):
        raise BadInput(f"{VARIABLE}: {dtype} is not a dtype for CPUs", "use float32 or bfloat16, or unset it")
    return dtype


def describe_compute(device: str, base: Path, dtype: str) -> str:
    """Return a line for the log: the dtype, and on a CPU what was measured."""
    if device != "cpu" or _configured():
        return f"computing in {dtype}"
    measurement = measure(model_shape(base))
    override = "" if dtype == measurement.dtype else f"; {measurement.dtype} is faster on this machine"
    return f"computing in {dtype} ({measurement}{override})"


def model_shape(base: Path | None) -> tuple[int, int]:
    """Return hidden and intermediate size from a model's config.json, within the limits of a measurement."""
    hidden, intermediate = DEFAULT_SHAPE
    if base is not None:
        try:
            config = parse_json((base / "config.json").read_text())
            config = config.get("text_config") or config  # multimodal models
            hidden, intermediate = int(config["hidden_size"]), int(config["intermediate_size"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # other names in old architectures; the model's loader reports an unreadable file
    return _limit(hidden), _limit(intermediate)


def _limit(size: int) -> int:
    return min(max(size, MIN_SIZE), MAX_SIZE)


@lru_cache
def measure(shape: tuple[int, int]) -> Measurement:
    """Time products of an MLP's shapes in both dtypes, alternately, and return the best of each."""
    import torch

    use_physical_cores()
    operands = {dtype: _operands(shape, dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds = dict.fromkeys(operands, float("inf"))
    begin = time.perf_counter()
    with torch.inference_mode():
        for number in range(ROUNDS):
            # The first round also prepares the kernels and is rarely the fastest, so there is a second one.
            if number > 1 and time.perf_counter() - begin > BUDGET_SECONDS:
                break
            for dtype, (inputs, up, down) in operands.items():
                start = time.perf_counter()
                torch.nn.functional.linear(torch.nn.functional.linear(inputs, up), down)
                seconds[dtype] = min(seconds[dtype], time.perf_counter() - start)
    operations = 4 * ROWS * shape[0] * shape[1]
    return Measurement(*(operations / seconds[dtype] / GIGA for dtype in operands))


def _operands(shape: tuple[int, int], dtype: Any) -> tuple[Any, Any, Any]:
    import torch

    hidden, intermediate = shape
    return (
        torch.ones((ROWS, hidden), dtype=dtype),
        torch.ones((intermediate, hidden), dtype=dtype),
        torch.ones((hidden, intermediate), dtype=dtype),
    )


def use_physical_cores() -> None:
    """Let torch use one thread per physical core of the container's quota, unless OMP_NUM_THREADS is set.

    torch counts the cores of the host, and a container with a quota of fewer is throttled.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != (threads := machine.physical_cores()):
        torch.set_num_threads(threads)
