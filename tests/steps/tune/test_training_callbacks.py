"""What a line of the loss curve holds."""

import mmap
from pathlib import Path

import psutil
import pytest
from trainable_model import curve
from tuning import quick, small_model, with_rows

from steps.runtime.machine import GIB
from steps.tune import training_callbacks


def test_every_step_tells_the_memory_of_its_process(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    quick(with_rows(tmp_path), small_model(tmp_path_factory.getbasetemp()))
    lines = curve(tmp_path)
    assert len(lines) == 4
    # A process with torch in it takes more than 100 MiB; this model next to nothing.
    assert all(0.1 < line["memory_gib"] < psutil.virtual_memory().total / GIB for line in lines)
    assert "memory_reserved_gib" not in lines[0], "only a GPU's allocator reserves"


def test_memory_is_what_the_system_says() -> None:
    torch = pytest.importorskip("torch")
    device = torch.device("cpu")
    with mmap.mmap(-1, 2**27) as ballast:  # not the allocator's, which a training may have told to keep what it has
        ballast[:: mmap.PAGESIZE] = b"x" * (2**27 // mmap.PAGESIZE)
        before = training_callbacks._memory(device)["memory_gib"]
        assert before == pytest.approx(psutil.Process().memory_info().rss / GIB, rel=0.1)
    assert training_callbacks._memory(device)["memory_gib"] < before - 0.1


@pytest.mark.gpu
def test_a_gpu_tells_the_most_since_the_last_step() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    training_callbacks._memory(device)
    spike = torch.ones(64 * 1024 * 1024, device=device)  # 256 MiB
    del spike
    told = training_callbacks._memory(device)
    assert told["memory_gib"] >= 0.25
    assert told["memory_reserved_gib"] >= told["memory_gib"]
    assert training_callbacks._memory(device)["memory_gib"] < 0.25


def test_a_number_that_json_has_no_word_for_is_null() -> None:
    line = training_callbacks._line({"step": 1, "loss": 2.0, "grad_norm": float("inf"), "other": 1})
    assert line == '{"step": 1, "loss": 2.0, "grad_norm": null}\n'
