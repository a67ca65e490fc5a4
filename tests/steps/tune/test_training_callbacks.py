"""Lines of the loss curve."""

import mmap
from pathlib import Path

import psutil
import pytest
from trainable_model import curve
from tuning import quick, small_model, with_rows

from steps.runtime.machine import GIB
from steps.tune import training_callbacks


def test_every_step_records_the_process_memory(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    quick(with_rows(tmp_path), small_model(tmp_path_factory.getbasetemp()))
    lines = curve(tmp_path)
    assert len(lines) == 4
    # A process that imports torch uses more than 100 MiB; this model is tiny.
    assert all(0.1 < line["memory_gib"] < psutil.virtual_memory().total / GIB for line in lines)
    assert "memory_reserved_gib" not in lines[0], "only a GPU's allocator reserves"


def test_memory_is_the_resident_size() -> None:
    torch = pytest.importorskip("torch")
    device = torch.device("cpu")
    with mmap.mmap(-1, 2**27) as ballast:  # outside malloc, which a training can have told not to trim
        ballast[:: mmap.PAGESIZE] = b"x" * (2**27 // mmap.PAGESIZE)
        before = training_callbacks._memory(device)["memory_gib"]
        assert before == pytest.approx(psutil.Process().memory_info().rss / GIB, rel=0.1)
    assert training_callbacks._memory(device)["memory_gib"] < before - 0.1


@pytest.mark.gpu
def test_a_gpu_records_the_peak_since_the_last_step() -> None:
    torch = pytest.importorskip("torch")
    device = torch.device("cuda")
    training_callbacks._memory(device)
    spike = torch.ones(64 * 1024 * 1024, device=device)  # 256 MiB
    del spike
    memory = training_callbacks._memory(device)
    assert memory["memory_gib"] >= 0.25
    assert memory["memory_reserved_gib"] >= memory["memory_gib"]
    assert training_callbacks._memory(device)["memory_gib"] < 0.25


def test_infinity_becomes_null() -> None:
    line = training_callbacks._line({"step": 1, "loss": 2.0, "grad_norm": float("inf"), "other": 1})
    assert line == '{"step": 1, "loss": 2.0, "grad_norm": null}\n'
