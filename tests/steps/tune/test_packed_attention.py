"""Packed rows have the outputs and gradients of separate rows, in each supported architecture."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from test_batching import mixed_rows
from tuning import losses, quick, small_model, with_rows

from steps.models.model import load_tokenizer
from steps.tune import batching, packed_attention

LENGTHS = [5, 23, 1, 40, 12]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "pad_token_id": 0,
}


def config(folder: Path, model_type: str, **changes: Any) -> Any:
    model_config = transformers.AutoConfig.for_model(model_type, **(SIZES | changes))
    model_config.save_pretrained(folder)
    return model_config


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("phi3", {}),
        ("phi3", {"sliding_window": 7}),
        ("mistral", {"sliding_window": 7}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 8}),
        ("gemma3_text", {"head_dim": 8, "sliding_window": 7}),
    ],
)
def test_packed_rows_have_the_outputs_and_gradients_of_separate_rows(
    tmp_path: Path, model_type: str, changes: dict[str, Any]
) -> None:
    model_config = config(tmp_path, model_type, **changes)
    assert packed_attention.register_if_supported(tmp_path) == packed_attention.NAME
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(model_config, attn_implementation=packed_attention.NAME)
    rows = [torch.randint(3, 300, (length,)).tolist() for length in LENGTHS]
    collated = batching_collator()([{"input_ids": row, "labels": row} for row in rows])
    together = model(**collated, use_cache=False).logits[0]
    together.logsumexp(-1).sum().backward()
    gradient = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}

    model.zero_grad()
    model.set_attn_implementation("sdpa")
    alone = torch.cat([model(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows])
    alone.logsumexp(-1).sum().backward()
    assert torch.allclose(together, alone, atol=1e-5)
    assert gradient
    for name, value in model.named_parameters():
        if name in gradient:
            assert torch.allclose(gradient[name], value.grad, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("length", [2, packed_attention.MAX_FLOAT32_TOKENS, packed_attention.MAX_FLOAT32_TOKENS + 1])
def test_short_rows_are_attended_in_float32(length: int, autocast: bool) -> None:
    torch.manual_seed(0)
    states = [torch.randn(1, 2, 3 + length, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        lengths = torch.tensor([0, 3, 3 + length])
        output, _ = packed_attention.packed_attention(torch.nn.Module(), *states, None, cu_seq_lens_q=lengths)
    row = [part[:, :, 3:] for part in states]
    bfloat16, float32 = (
        torch.nn.functional.scaled_dot_product_attention(*(part.to(dtype) for part in row), is_causal=True)
        for dtype in (torch.bfloat16, torch.float32)
    )
    expected = float32.bfloat16() if length <= packed_attention.MAX_FLOAT32_TOKENS else bfloat16
    assert output.dtype is torch.bfloat16
    attended = output[:, 3:].transpose(1, 2)
    assert torch.equal(attended, expected)
    assert length == 2 or not torch.equal(float32.bfloat16(), bfloat16)
    gradient = torch.randn_like(attended)
    for given, right in zip(
        torch.autograd.grad(attended, states, gradient), torch.autograd.grad(expected, states, gradient), strict=True
    ):
        assert torch.equal(given, right)
        assert given.any()


def batching_collator() -> Any:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    return DataCollatorForLanguageModeling(0, padding_free=True)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("falcon", {}),  # custom attention
        ("gemma2", {"head_dim": 8}),  # caps its scores
        ("gpt_oss", {"head_dim": 8, "num_local_experts": 2}),  # has sinks
        ("mamba", {}),  # has a state across rows
        ("lfm2", {"layer_types": ["conv", "full_attention"]}),  # has convolutions across rows
        ("t5", {}),
    ],
)
def test_unsupported_architectures(tmp_path: Path, model_type: str, changes: dict[str, Any]) -> None:
    config(tmp_path, model_type, **changes)
    assert packed_attention.register_if_supported(tmp_path) == ""


@pytest.mark.parametrize(
    ("chosen", "used"),
    [
        ({}, True),
        ({"padding_free": True}, True),
        ({"packing": True}, True),
        ({"packing": True, "packing_strategy": "wrapped"}, False),
        ({"train_sampling_strategy": "random"}, False),
        ({"train_sampling_strategy": "group_by_length"}, False),
    ],
)
def test_the_training_uses_it_for_packed_rows(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: dict[str, Any],
    used: bool,
) -> None:
    calls = []
    original = packed_attention.packed_attention
    spy = lambda *args, **kwargs: calls.append(1) or original(*args, **kwargs)  # noqa: E731
    monkeypatch.setattr(packed_attention, "packed_attention", spy)
    tiny = small_model(tmp_path_factory.getbasetemp())
    work = with_rows(tmp_path / "work")
    quick(work, tiny, training_arguments=chosen, max_steps=2)
    assert len(losses(work)) == 2
    assert bool(calls) == used


def test_no_mask_is_created(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = small_model(tmp_path_factory.getbasetemp())
    name = packed_attention.register_if_supported(tiny)
    masks = []
    original = packed_attention.packed_attention
    spy = lambda *args, **kwargs: masks.append(args[4]) or original(*args, **kwargs)  # noqa: E731
    transformers.AttentionInterface.register(name, spy)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny, attn_implementation=name)
    rows = mixed_rows(load_tokenizer(tiny))
    model(**batching_collator()(list(batching.dataset(rows, {}))), use_cache=False)
    packed_attention.register_if_supported(tiny)
    assert masks
    assert set(masks) == {None}
