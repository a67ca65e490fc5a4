"""The dtype that a CPU computes in fastest is measured; its flags do not decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steps.models import compute_dtype as compute
from steps.models.layer_probe import Measurement, Seconds
from steps.runtime import machine
from steps.runtime.errors import BadInput


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo the configured dtype of conftest.py."""
    monkeypatch.delenv(compute.VARIABLE)


def test_a_configured_dtype_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(compute, "measure")
    monkeypatch.setenv(compute.VARIABLE, "bfloat16")
    assert compute.compute_dtype("cpu", tmp_path) == "bfloat16"
    assert compute.describe_compute("cpu", tmp_path, "bfloat16") == "computing in bfloat16"
    monkeypatch.setenv(compute.VARIABLE, "fp8")
    with pytest.raises(BadInput, match="ARGOTUNE_COMPUTE_DTYPE: fp8"):
        compute.compute_dtype("cpu", tmp_path)


@pytest.mark.parametrize(("bfloat16", "dtype"), [(0.5, "bfloat16"), (2.0, "float32")])
def test_the_faster_dtype_is_chosen(monkeypatch: pytest.MonkeyPatch, bfloat16: float, dtype: str) -> None:
    monkeypatch.setattr(compute, "measure", lambda base, tokens: measurement(1.0, bfloat16))
    assert compute.compute_dtype("cpu") == dtype


def test_a_configured_dtype_that_is_slower_is_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compute, "measure", lambda base, tokens: measurement(0.024, 0.058))
    text = compute.describe_compute("cpu", tmp_path, "bfloat16", 100)
    probe = "layer with 100 tokens in bfloat16 and float32: 58 and 24 ms, speed 0.41 to 1"
    assert text == f"computing in bfloat16 ({probe}; float32 is faster on this machine)"
    assert compute.describe_compute("cpu", tmp_path, "float32") == f"computing in float32 ({probe})"


def measurement(float32: float, bfloat16: float) -> Measurement:
    return Measurement(100, Seconds(float32, float32), Seconds(bfloat16, bfloat16))


def test_threads_are_the_physical_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(machine, "physical_cores", lambda: 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    compute.use_physical_cores()
    assert used == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    compute.use_physical_cores()
    assert used == [3]


def test_physical_cores_are_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= machine.physical_cores() <= machine.cores()
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert machine.physical_cores() == 1
