"""Fused layers with an adapter: the output and gradients of PEFT's layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from steps.tune import fused_lora


def make_model(*, quantized: bool = True, **lora: Any) -> Any:
    import torch
    from bitsandbytes.nn import Linear4bit
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    base = torch.nn.Sequential()
    linear = (
        Linear4bit(64, 128, bias=True, compute_dtype=torch.float32, quant_type="nf4", compress_statistics=True)
        if quantized
        else torch.nn.Linear(64, 128)
    )
    base.add_module("first", torch.nn.Linear(16, 64))
    base.add_module("proj", linear)
    model = get_peft_model(base.to("cpu"), LoraConfig(target_modules=["proj"], r=4, lora_alpha=12, **lora))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first, so that the adapter would have no effect
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def compute_in(model: Any, dtype: Any) -> None:
    """Set the dtype of the quantized products, as ``bnb_4bit_compute_dtype`` does."""
    for module in model.modules():
        if hasattr(module, "quant_state"):
            module.compute_dtype = dtype


def run(model: Any, states: Any) -> dict[str, Any]:
    """Return the output and the gradients of input and adapter."""
    states = states.clone().requires_grad_()
    model.zero_grad()
    output = model(states)
    output.square().sum().backward()
    gradients = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    return {"output": output.detach(), "states": states.grad, **gradients}


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("kept_gib", [1.0, 0.0])
def test_output_and_gradients_are_those_of_peft(
    quantized: bool, kept_gib: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(fused_lora, "MAX_KEPT_GIB", kept_gib)
    model = make_model(quantized=quantized)
    states = torch.randn(2, 5, 16)
    expected = run(model, states)
    layers, kept = fused_lora.fuse(model)
    assert (layers, kept) == (1, 64 * 128 * 4 if quantized and kept_gib else 0)
    for _ in range(2):
        found = run(model, states)
        assert found.keys() == expected.keys() and any("lora_A" in name for name in found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_autocast_computes_in_its_dtype() -> None:
    import torch

    model = make_model()
    compute_in(model, torch.bfloat16)
    states = torch.randn(3, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = run(model, states)
        fused_lora.fuse(model)
        found = run(model, states)
    assert found["output"].dtype == torch.bfloat16
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value.float(), rtol=0.05, atol=0.5, msg=name)


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_keep_the_forward_pass_of_peft(lora: dict[str, Any]) -> None:
    assert fused_lora.fuse(make_model(quantized=False, **lora)) == (0, 0)


def test_a_disabled_adapter_has_no_effect() -> None:
    import torch

    model = make_model()
    states = torch.randn(3, 16)
    plain = copy.deepcopy(model)
    fused_lora.fuse(model)
    with model.disable_adapter(), plain.disable_adapter():
        torch.testing.assert_close(model(states), plain(states))
