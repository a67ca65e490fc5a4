"""Every initialization results in a LoRA that plain PEFT loads on the original base, with the same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tuning import losses, quick, with_rows

from steps.models.adapter import CONFIG
from steps.runtime.errors import BadInput
from steps.tune import lora_init, training
from steps.tune.checkpoints import MARKER

FLOAT32 = {"torch_dtype": "float32"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return with_rows(tmp_path / "work", 16)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Models of the trainings of a test."""
    models: list[Any] = []
    original = training._create_trainer

    def record(*arguments: Any, **more: Any) -> Any:
        trainer = original(*arguments, **more)
        models.append(trainer.model)
        return trainer

    monkeypatch.setattr(training, "_create_trainer", record)
    return models


def logits(model: Any) -> Any:
    """Return logits in training mode, without dropout: for inference, bitsandbytes rounds on CPUs with bfloat16."""
    import torch

    with torch.no_grad():
        return model.train()(input_ids=torch.arange(3, 43).reshape(2, 20)).logits


def load_with_peft(base: Path, adapter: Path, quantized: bool) -> Any:
    """Load the adapter as users do, without argotune."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.float32, quantization_config=nf4 if quantized else None
    )
    return PeftModel.from_pretrained(model, adapter)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rslora": ("lora", {"use_rslora": True, "init_lora_weights": "gaussian"}),
    "dora": ("qlora", {"use_dora": True}),
    "orthogonal": ("qlora", {"init_lora_weights": "orthogonal"}),
    "pissa": (
        "qlora",
        {
            "init_lora_weights": "pissa",
            "use_rslora": True,
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {"o_proj": 3},
        },
    ),
    "olora": ("lora", {"init_lora_weights": "olora", "rank_pattern": {"k_proj": 40}}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_plain_peft_computes_the_same(name: str, tiny: Path, work: Path, trained: list[Any]) -> None:
    import torch

    method, lora = VARIANTS[name]
    decay = {"weight_decay": 0.5}  # would change a half that is not frozen
    quick(
        work, tiny, method=method, max_steps=3, dropout=0.0, lora_config=lora, model_config=FLOAT32,
        training_arguments=decay,
    )  # fmt: skip
    alone = load_with_peft(tiny, work / "adapter", method == "qlora")
    with alone.disable_adapter():
        before = logits(alone)
    after = logits(alone)
    assert torch.allclose(after, logits(trained[0]), atol=1e-4)
    assert (after - before).abs().max() > 0.1
    config = json.loads((work / "adapter" / CONFIG).read_text())
    assert config["r"] == lora_init.written_rank(4, lora)
    if lora_init.doubles_rank(lora):
        assert config["init_lora_weights"] is True
        # Load it again: with AVX-512, bitsandbytes repacks weights at the first inference.
        assert_frozen_half(load_with_peft(tiny, work / "adapter", method == "qlora"), lora)


def assert_frozen_half(model: Any, lora: dict[str, Any]) -> None:
    """Check that the frozen half subtracts from each layer what PEFT would have subtracted."""
    import torch

    for _, layer in lora_init._layers(model):
        rank = layer.r["default"] // 2
        a, b = lora_init._init_matrices(layer, lora["init_lora_weights"], rank)
        count = len(a)
        assert torch.allclose(layer.lora_A["default"].weight[rank : rank + count], a, atol=1e-5)
        assert torch.allclose(layer.lora_B["default"].weight[:, rank : rank + count], -b, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_loss_and_gradients_are_those_of_peft(tiny: Path, init: str) -> None:
    """PEFT subtracts the directions from the base's weights instead."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    lora = {"r": 4, "lora_alpha": 8, "init_lora_weights": init}
    targets = {"target_modules": ["q_proj", "down_proj"]}
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(**lora, **targets))
    plain = LoraConfig(**lora_init.as_trained(lora), **targets)
    ours = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), plain)
    lora_init.init_adapter(ours, lora)
    lora_init.freeze_second_half(ours, lora)
    ids = torch.arange(3, 43).reshape(2, 20)
    for model in (theirs, ours):
        model(input_ids=ids, labels=ids).loss.backward()
    for (_, one), (_, other) in zip(lora_init._layers(theirs), lora_init._layers(ours), strict=True):
        expected_a, expected_b = one.lora_A["default"].weight.grad, one.lora_B["default"].weight.grad
        a, b = other.lora_A["default"].weight.grad, other.lora_B["default"].weight.grad
        assert torch.allclose(a[:4], expected_a, rtol=1e-3, atol=1e-5)
        assert torch.allclose(b[:, :4], expected_b, rtol=1e-3, atol=1e-5)
        assert not a[4:].any() and not b[:, 4:].any()


def test_a_resumed_training_gives_the_same_adapter(tiny: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags: dict[str, Any] = {"max_steps": 6, "lora_config": {"init_lora_weights": "pissa_niter_2"}}
    first = quick(work, tiny, **flags)
    curve = losses(work)
    (work / "checkpoints" / "checkpoint-6" / MARKER).unlink()
    again = quick(work, tiny, **flags)
    assert "resuming from step 5" in capsys.readouterr().out
    assert losses(work) == pytest.approx(curve, abs=1e-6)
    assert again.adapter_digest == first.adapter_digest


@pytest.mark.parametrize(
    ("lora", "key", "message"),
    [
        ({"init_lora_weights": "loftq"}, "init_lora_weights", "loftq is not supported: it compensates quantization"),
        ({"init_lora_weights": "eva"}, "init_lora_weights", "use pissa"),
        ({"init_lora_weights": "pisa"}, "init_lora_weights", "must be true, false, gaussian, orthogonal,"),
        ({"init_lora_weights": "pissa", "use_dora": True}, "use_dora", "cannot be combined with"),
    ],
)  # fmt: skip
def test_unsupported_values_are_rejected(tiny: Path, work: Path, lora: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        quick(work, tiny, lora_config=lora)
    assert f"lora_config.{key}: " in caught.value.message
    assert message in caught.value.message
