"""The dtype that a CPU computes in fastest is measured; its flags do not decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steps.models import compute_dtype as compute
from steps.models.compute_dtype import Measurement
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


@pytest.mark.parametrize(
    ("speeds", "dtype"), [((320.0, 163.0), "float32"), ((202.0, 886.0), "bfloat16"), ((100.0, 100.0), "bfloat16")]
)
def test_the_faster_dtype_is_chosen(monkeypatch: pytest.MonkeyPatch, speeds: tuple[float, float], dtype: str) -> None:
    monkeypatch.setattr(compute, "measure", lambda shape: Measurement(*speeds))
    assert compute.compute_dtype("cpu") == dtype


def test_products_of_both_dtypes_are_timed() -> None:
    measured = compute.measure((256, 512))
    assert measured.float32 > 0
    assert measured.bfloat16 > 0
    assert compute.measure((256, 512)) is measured  # once in a process


def test_the_operations_of_both_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(compute.time, "perf_counter", lambda: float(next(ticks)))  # one second each
    measured = compute.measure((300, 700))
    assert measured.float32 == measured.bfloat16 == 2 * (2 * compute.ROWS * 300 * 700) / 1e9


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"hidden_size": 576, "intermediate_size": 1536}, (576, 1536)),
        ({"hidden_size": 8192, "intermediate_size": 28672}, (1536, 1536)),
        ({"hidden_size": 16, "intermediate_size": 32}, (256, 256)),
        ({"text_config": {"hidden_size": 640, "intermediate_size": 1024}}, (640, 1024)),
        ({"n_embd": 768}, (576, 1536)),
        ({"hidden_size": None}, (576, 1536)),
        ([], (576, 1536)),
    ],
)
def test_shapes_come_from_the_model(tmp_path: Path, config: object, shape: tuple[int, int]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert compute.model_shape(tmp_path) == shape


def test_a_configured_dtype_that_is_slower_is_logged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compute, "measure", lambda shape: Measurement(float32=320, bfloat16=163))
    text = compute.describe_compute("cpu", tmp_path, "bfloat16")
    expected = "computing in bfloat16 (bfloat16 163, float32 320 GFLOP/s; float32 is faster on this machine)"
    assert text == expected
    assert "faster" not in compute.describe_compute("cpu", tmp_path, "float32")


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
