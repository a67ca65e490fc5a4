"""A training that runs out of memory continues with smaller batches and the same loss curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning import losses, quick, with_rows

from steps.runtime.errors import InsufficientCapacity
from steps.tune import launcher, oom_backoff, training
from steps.tune.oom_backoff import CHECKPOINTING, _is_out_of_memory
from steps.tune.shared_batches import ACCUMULATION, BATCH_SIZE
from steps.tune.training_config import TrainingConfig


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``memory_for(rows, after=calls)``: after these calls the device has memory for batches of ``rows`` only."""
    import torch

    load = training.load_base

    def limit(rows: int, after: int = 0) -> None:
        calls = 0

        def check(module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
            nonlocal calls
            calls += 1
            boundaries = inputs.get("cu_seq_lens_q")  # of rows concatenated into one sequence
            batch_size = len(inputs["input_ids"]) if boundaries is None else len(boundaries) - 1
            if calls > after and batch_size > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def load_limited(*arguments: Any, **more: Any) -> Any:
            model = load(*arguments, **more)
            model.register_forward_pre_hook(check, with_kwargs=True)
            return model

        monkeypatch.setattr(training, "load_base", load_limited)

    return limit


SETTINGS = {"max_steps": 12, "dropout": 0.0, "model_config": {"dtype": "float32"}}


def test_the_loss_curve_stays_the_same(
    tiny: Path, tmp_path: Path, memory_for: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    full, limited = with_rows(tmp_path / "full"), with_rows(tmp_path / "limited")
    quick(full, tiny, **SETTINGS)
    memory_for(rows=1, after=7)
    result = quick(limited, tiny, **SETTINGS)
    out = capsys.readouterr().out
    for before, batch_size, accumulation in ((4, 2, 2), (2, 1, 4)):
        assert f"warning: out of memory with {BATCH_SIZE}={before}; retrying with {batch_size} and " in out
        assert f"{ACCUMULATION}={accumulation} (same training, slower)" in out
    assert "resuming from step " in out  # the checkpoint belongs to the same training
    assert result.steps == 12
    assert losses(limited) == pytest.approx(losses(full), abs=1e-3)


def test_a_row_too_large_for_the_memory_is_reported(tiny: Path, tmp_path: Path, memory_for: Any) -> None:
    memory_for(rows=0)
    with pytest.raises(InsufficientCapacity) as caught:
        quick(with_rows(tmp_path / "work"), tiny, method="lora")
    assert "out of memory with a per-device batch size of 1" in caught.value.message
    assert caught.value.fix == "reduce max_length (now 128), or use method qlora"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("user", "attempts"),
    [
        ({}, [{}, {CHECKPOINTING: True}, {CHECKPOINTING: True, BATCH_SIZE: 2, ACCUMULATION: 2}]),
        ({CHECKPOINTING: False}, [{}, {BATCH_SIZE: 2, ACCUMULATION: 2}]),
    ],
)
def test_a_gpu_tries_gradient_checkpointing_first(
    monkeypatch: pytest.MonkeyPatch, user: dict[str, Any], attempts: list[dict[str, Any]]
) -> None:
    """Unless the user has set it."""
    import torch

    monkeypatch.setattr(oom_backoff, "choose_device", lambda: "cuda")
    config = TrainingConfig({BATCH_SIZE: 4, **user}, {}, "", by_epoch=False)
    tried: list[dict[str, Any]] = []

    def train(config: TrainingConfig) -> str:
        tried.append(config.arguments)
        if len(tried) < len(attempts):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "trained"

    assert oom_backoff.with_oom_backoff(config, "lora", train) == "trained"
    assert tried == [{BATCH_SIZE: 4, **user, **changed} for changed in attempts]


def test_other_errors_are_not_retried(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(training, "load_base", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        quick(with_rows(tmp_path / "work"), tiny)


def test_the_cpu_allocators_error_is_recognized() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert _is_out_of_memory(caught.value)


def test_one_process_replaces_several_that_are_out_of_memory(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(*_: Any, **__: Any) -> Any:
        raise InsufficientCapacity("out of memory with a per-device batch size of 1")

    expected, spread = with_rows(tmp_path / "expected"), with_rows(tmp_path / "spread")
    quick(expected, tiny, **SETTINGS, batch_size=8)
    monkeypatch.setattr(launcher, "count", lambda *_: 2)
    monkeypatch.setattr(launcher, "run", too_large)
    quick(spread, tiny, **SETTINGS)
    assert "spreading its layers over 2 GPUs" in capsys.readouterr().out
    assert losses(spread) == pytest.approx(losses(expected), abs=1e-3)
    with pytest.raises(InsufficientCapacity):
        quick(spread, tiny, **SETTINGS, processes=2)
