"""A batch that is too large for the device is learned from in pieces, and the loss curve is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning import losses, quick, small_model, with_rows

from steps.runtime.errors import InsufficientCapacity
from steps.tune import oom_backoff
from steps.tune import step as tune
from steps.tune.oom_backoff import CHECKPOINTING, _is_short_of_memory
from steps.tune.shared_batches import ACCUMULATION, BATCH_SIZE
from steps.tune.training_config import TrainingConfig


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``memory_for(rows, after=calls)``: from then on the device has memory for so many rows at a time."""
    import torch

    load = tune.load_base

    def limit(rows: int, after: int = 0) -> None:
        calls = 0

        def check(module: Any, arguments: Any, inputs: dict[str, Any]) -> None:
            nonlocal calls
            calls += 1
            joined = inputs.get("cu_seq_lens_q")  # where the rows of a batch begin and end in one sequence
            given = len(inputs["input_ids"]) if joined is None else len(joined) - 1
            if calls > after and given > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def load_limited(*arguments: Any, **more: Any) -> Any:
            model = load(*arguments, **more)
            model.register_forward_pre_hook(check, with_kwargs=True)
            return model

        monkeypatch.setattr(tune, "load_base", load_limited)

    return limit


SETTINGS = {"max_steps": 12, "dropout": 0.0, "model_config": {"dtype": "float32"}}


def test_the_loss_curve_stays_the_same(
    tiny: Path, tmp_path: Path, memory_for: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, pieces = with_rows(tmp_path / "whole"), with_rows(tmp_path / "pieces")
    quick(whole, tiny, **SETTINGS)
    memory_for(rows=1, after=7)
    result = quick(pieces, tiny, **SETTINGS)
    out = capsys.readouterr().out
    assert "warning: 4 rows at a time do not fit the device's memory; going on with 2 at a time, 2 times" in out
    assert "2 rows at a time do not fit the device's memory; going on with 1 at a time, 4 times" in out
    assert "going on from step " in out  # not from the beginning: the checkpoint is of the same training
    assert result.steps == 12
    assert losses(pieces) == pytest.approx(losses(whole), abs=1e-3)


def test_one_row_that_does_not_fit_is_told_with_what_to_lower(tiny: Path, tmp_path: Path, memory_for: Any) -> None:
    memory_for(rows=0)
    with pytest.raises(InsufficientCapacity) as caught:
        quick(with_rows(tmp_path / "work"), tiny, method="lora")
    assert "even with one row at a time" in caught.value.message
    assert caught.value.fix == "lower max_length (now 128), or use method qlora"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("own", "tries"),
    [
        ({}, [{}, {CHECKPOINTING: True}, {CHECKPOINTING: True, BATCH_SIZE: 2, ACCUMULATION: 2}]),
        ({CHECKPOINTING: False}, [{}, {BATCH_SIZE: 2, ACCUMULATION: 2}]),
    ],
)
def test_a_gpu_computes_again_before_it_takes_fewer_rows(
    monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], tries: list[dict[str, Any]]
) -> None:
    """Unless the user has decided about that."""
    import torch

    monkeypatch.setattr(oom_backoff, "choose_device", lambda: "cuda")
    config = TrainingConfig({BATCH_SIZE: 4, **own}, {}, "", "assistant", "keep_start", by_epoch=False)
    tried: list[dict[str, Any]] = []

    def train(config: TrainingConfig) -> str:
        tried.append(config.arguments)
        if len(tried) < len(tries):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "trained"

    assert oom_backoff.with_oom_backoff(config, "lora", train) == "trained"
    assert tried == [{BATCH_SIZE: 4, **own, **changed} for changed in tries]


def test_other_errors_are_no_lack_of_memory(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(tune, "load_base", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        quick(with_rows(tmp_path / "work"), tiny)


def test_the_processors_allocator_is_understood() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert _is_short_of_memory(caught.value)


def test_what_no_process_of_several_can_hold_is_trained_by_one_with_the_same_steps(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(*_: Any) -> Any:
        raise InsufficientCapacity("the device's memory is too small for this training, even with one row at a time")

    whole, spread = with_rows(tmp_path / "whole"), with_rows(tmp_path / "spread")
    quick(whole, tiny, **SETTINGS, batch_size=8)
    monkeypatch.setattr(tune.launcher, "count", lambda *_: 2)
    monkeypatch.setattr(tune.launcher, "run", too_large)
    quick(spread, tiny, **SETTINGS)
    assert "its layers spread over 2 GPUs" in capsys.readouterr().out
    assert losses(spread) == pytest.approx(losses(whole), abs=1e-3)
    with pytest.raises(InsufficientCapacity):
        quick(spread, tiny, **SETTINGS, processes=2)
