"""One layer of a model, timed in both dtypes, decides the dtype of a training on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steps.models import layer_probe
from steps.models.layer_probe import MARGIN, Measurement, Seconds, Shape


@pytest.mark.parametrize(
    ("float32", "bfloat16", "dtype"),
    [
        ((58, 58), (24, 24), "bfloat16"),
        ((2.6, 2.6), (3.3, 3.5), "float32"),
        ((100, 100), (100 / MARGIN, 100 / MARGIN), "bfloat16"),
        ((100, 100), (95, 95), "float32"),  # the rest of a step is in float32
        ((150, 100), (100, 120), "float32"),  # only the wall time of a busy machine is longer
        ((100, 200), (150, 100), "float32"),  # fewer threads
    ],
)
def test_bfloat16_has_to_win_by_a_margin(
    float32: tuple[float, float], bfloat16: tuple[float, float], dtype: str
) -> None:
    assert Measurement(256, Seconds(*float32), Seconds(*bfloat16)).dtype == dtype


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9}, Shape(576, 1536, 9)),
        ({"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}, Shape(64, 128, 4)),
        ({"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64}, Shape(1024, 1536, 8)),
        ({"hidden_size": 100, "intermediate_size": 10, "num_attention_heads": 7}, Shape(98, 10, 7)),
        (
            {"text_config": {"hidden_size": 640, "intermediate_size": 1024, "num_attention_heads": 4}},
            Shape(640, 1024, 4),
        ),
        ({"n_embd": 768}, Shape()),
        ({"hidden_size": 576, "intermediate_size": 0, "num_attention_heads": 9}, Shape()),
        ({"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 9}, Shape(8, 8, 8)),
        ({"hidden_size": 1e400, "intermediate_size": 8, "num_attention_heads": 1}, Shape()),
        ({"hidden_size": None}, Shape()),
        ([], Shape()),
    ],
)
def test_the_shape_is_that_of_the_model(tmp_path: Path, config: object, shape: Shape) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert layer_probe.model_shape(tmp_path) == shape


def test_tokens_are_those_of_a_batch_up_to_a_limit() -> None:
    assert layer_probe.limit_tokens(Shape(64, 128, 4), 1428) == 1428
    assert layer_probe.limit_tokens(Shape(64, 128, 4), 100_000) == layer_probe.MAX_TOKENS
    assert layer_probe.limit_tokens(Shape(576, 1536, 9), 849) == 502
    assert layer_probe.limit_tokens(Shape(1024, 1536, 8), 849) == 224
    assert layer_probe.limit_tokens(Shape(8192, 24576, 8), 849) == layer_probe.MIN_TOKENS
    assert layer_probe.limit_tokens(Shape(), 0) == 1


def test_a_layer_is_timed_in_both_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_probe, "BUDGET_SECONDS", 0.0)
    measured = layer_probe.measure(Shape(64, 128, 4), 200)
    assert measured.tokens == 200
    assert min(measured.float32.wall, measured.float32.cpu, measured.bfloat16.wall, measured.bfloat16.cpu) > 0
    assert layer_probe.measure(Shape(64, 128, 4), 200) is measured  # once in a process


@pytest.mark.parametrize("dtype", layer_probe.DTYPES)
def test_a_layer_has_gradients_of_its_adapters(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    created: list[torch.Tensor] = []
    full: Callable[..., torch.Tensor] = torch.full
    monkeypatch.setattr(torch, "full", lambda *args, **kwargs: created.append(full(*args, **kwargs)) or created[-1])
    layer_probe._layer(Shape(64, 128, 4), 130, dtype)()
    adapters = [tensor for tensor in created if tensor.requires_grad and tensor.dtype is torch.float32]
    assert len(adapters) >= 14
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in adapters)
    assert sum(tensor.dtype is getattr(torch, dtype) for tensor in created) >= 8  # weights and inputs


@pytest.mark.parametrize(("seconds", "rounds"), [((0.02, 0.01), 3), ((0.02, 0.5), 1), ((0.0002, 0.0001), 9)])
def test_rounds_end_with_the_budget(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], rounds: int
) -> None:
    """Without instructions for bfloat16, one round is enough."""
    now, calls = 0.0, 0

    def time(run: object) -> Seconds:
        nonlocal now, calls
        elapsed = seconds[calls % 2]
        calls, now = calls + 1, now + elapsed * 20
        return Seconds(elapsed, elapsed)

    monkeypatch.setattr(layer_probe, "_time", time)
    monkeypatch.setattr(layer_probe.time, "perf_counter", lambda: now)
    layer_probe.measure.__wrapped__(Shape(8, 8, 1), 1)
    assert calls == 2 * rounds
