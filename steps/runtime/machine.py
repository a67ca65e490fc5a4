"""Hardware of the local machine (cores, memory, GPUs, disk), and its memory allocator. Does not import torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 1024**3
CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h


@dataclass(frozen=True)
class Gpu:
    """One GPU, as ``nvidia-smi`` reports it."""

    name: str
    memory_gib: float


@dataclass(frozen=True)
class Machine:
    """Resources that a process can use: the limits of its container, not the size of the host."""

    cores: int
    memory_gib: float
    disk_gib: float
    """Free under the work folder."""
    gpus: tuple[Gpu, ...]

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return (
            f"{cores}, {self.memory_gib:.0f} GiB of memory, {gpu_text(self.gpus)}, {self.disk_gib:.0f} GiB disk free"
        )


def read(work: Path) -> Machine:
    """Return the resources of the local machine; ``work`` selects the disk, and need not exist yet."""
    return Machine(cores(), _memory() / GIB, _free_disk(work) / GIB, _gpus())


def disable_malloc_trim() -> None:
    """Let glibc reuse freed memory instead of returning it to the system; do nothing without glibc.

    Training on a CPU allocates and frees large tensors continuously. Returning each of them to the system and mapping
    it again page by page takes a fifth of the time of a step. The process keeps its peak size.
    """
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 2**28)


def gpu_text(gpus: tuple[Gpu, ...]) -> str:
    """Return GPUs as text: ``2 x NVIDIA A100 80 GiB``, or ``no GPU``."""
    kinds = dict.fromkeys((gpu.name, round(gpu.memory_gib)) for gpu in gpus)
    counted = [
        f"{sum((gpu.name, round(gpu.memory_gib)) == kind for gpu in gpus)} x {kind[0]} {kind[1]} GiB" for kind in kinds
    ]
    return ", ".join(counted) or "no GPU"


def is_torch_built_with_cuda() -> bool | None:
    """Return True if the installed torch is built for CUDA; None without torch. Reads its version file only."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    cuda = re.search(r"^cuda\b[^=]*=\s*(\S+)", text, re.MULTILINE)
    return cuda is not None and cuda[1] != "None"


def cores() -> int:
    """Return the number of cores that a process can use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text().split()
        usable = min(usable, max(1, int(quota) // int(period)))  # "max" is not a number: no limit
    return usable


def processor() -> str:
    """Return the model of the processor; its architecture if the system does not say."""
    with suppress(OSError):
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine()


def physical_cores() -> int:
    """Return the number of physical cores that a process can use: hyperthreads of one core count once."""
    topology = Path("/sys/devices/system/cpu")
    try:
        files = [topology / f"cpu{number}" / "topology" for number in os.sched_getaffinity(0)]
        physical = {((cpu / "physical_package_id").read_text(), (cpu / "core_id").read_text()) for cpu in files}
    except (AttributeError, OSError):  # not on Linux
        return cores()
    return min(cores(), len(physical))


def free_memory() -> int:
    """Return the free memory in bytes, at most the limit of the container."""
    return min(_memory(), psutil.virtual_memory().available)


def _memory() -> int:
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, int((CGROUP / "memory.max").read_text()))
    return total


def _free_disk(folder: Path) -> int:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that ``nvidia-smi`` lists and ``CUDA_VISIBLE_DEVICES`` allows."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if visible is None else {word.strip() for word in visible.split(",")}
    gpus = []
    for line in output.splitlines():
        with suppress(ValueError):
            index, uuid, name, mebibytes = (word.strip() for word in line.split(","))
            if chosen is None or {index, uuid} & chosen:
                gpus.append(Gpu(name, float(mebibytes) / 1024))
    return tuple(gpus)
