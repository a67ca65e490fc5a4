"""The dtype and the number of threads that a device computes in fastest.

The compute capability of a GPU determines its dtype. The flags of a CPU do not: with AVX-512 BF16 but without AMX,
bfloat16 products are up to twice as slow as float32 on one processor and several times as fast on another. So the time
of one layer of the model decides (layer_probe.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from steps.models import layer_probe
from steps.models.layer_probe import TOKENS, Measurement
from steps.runtime import machine
from steps.runtime.errors import BadInput

VARIABLE = "ARGOTUNE_COMPUTE_DTYPE"
"""Environment variable with the dtype for CPUs, for equal results on all machines: float32 or bfloat16."""


def compute_dtype(device: str, base: Path | None = None, tokens: int = TOKENS) -> str:
    """Return the dtype that a device computes in fastest.

    GPUs below compute capability 8.0 use float16.

    Args:
        device: ``cuda`` or ``cpu``.
        base: Directory of the model, of which a layer is measured on a CPU; None: a layer of a small model.
        tokens: Tokens of a batch.

    Raises:
        BadInput: ARGOTUNE_COMPUTE_DTYPE is set to another value than float32 or bfloat16.
    """
    if device == "cuda":
        import torch

        return "bfloat16" if torch.cuda.get_device_capability() >= (8, 0) else "float16"
    return _configured() or measure(base, tokens).dtype


def _configured() -> str:
    dtype = os.environ.get(VARIABLE, "")
    if dtype not in ("", "float32", "bfloat16"):
        raise BadInput(f"{VARIABLE}: {dtype} is not a dtype for CPUs", "use float32 or bfloat16, or unset it")
    return dtype


def describe_compute(device: str, base: Path, dtype: str, tokens: int = TOKENS) -> str:
    """Return a line for the log: the dtype, and on a CPU what was measured."""
    if device != "cpu" or _configured():
        return f"computing in {dtype}"
    measurement = measure(base, tokens)
    override = "" if dtype == measurement.dtype else f"; {measurement.dtype} is faster on this machine"
    return f"computing in {dtype} ({measurement}{override})"


def measure(base: Path | None, tokens: int = TOKENS) -> Measurement:
    """Return the time of one of the model's layers in both dtypes, measured once in a process."""
    use_physical_cores()
    return layer_probe.measure(layer_probe.model_shape(base), tokens)


def use_physical_cores() -> None:
    """Let torch use one thread per physical core of the container's quota, unless OMP_NUM_THREADS is set.

    torch counts the cores of the host, and a container with a quota of fewer is throttled.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() != (threads := machine.physical_cores()):
        torch.set_num_threads(threads)
