from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import HUB_ID, save_adapter, save_model

from steps.models import adapter_compat
from steps.models.adapter_compat import ServedAdapter


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return save_adapter(base, tmp_path / "adapter")


def with_config(folder: Path, **config: Any) -> ServedAdapter:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return adapter_compat.read("tuned", folder)


def problems(adapter: ServedAdapter, base: Path, kind: str = "vllm", rank: int | None = None) -> list[str]:
    return adapter_compat.problems(adapter, HUB_ID, base, kind, rank)


def test_an_adapter_of_this_base_fits(folder: Path, base: Path) -> None:
    assert problems(adapter_compat.read("tuned", folder), base) == []


def test_another_base_is_named(folder: Path, base: Path) -> None:
    adapter = with_config(folder, base_model_name_or_path="other/model")
    assert problems(adapter, base) == [f"adapter tuned: it was tuned on other/model, not on {HUB_ID}"]


def test_a_base_name_that_is_too_long_for_a_file_is_no_model_of_the_hub(folder: Path, base: Path) -> None:
    assert problems(with_config(folder, base_model_name_or_path="o" * 5000 + "/model"), base) == []


def test_an_adapter_tuned_on_a_directory_is_checked_by_shapes(folder: Path, base: Path, tmp_path: Path) -> None:
    adapter = with_config(folder, base_model_name_or_path="/workspace/tfs/weights")
    assert problems(adapter, base) == []
    from transformers import AutoConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(base)
    config.hidden_size = 128
    LlamaForCausalLM(config).save_pretrained(tmp_path / "larger")
    (problem,) = problems(adapter, tmp_path / "larger")
    assert "layer model.layers.0.self_attn.q_proj has shape [64, 64], but" in problem
    assert "another base model" in problem


def test_ranks_above_the_servers_are_rejected(folder: Path, base: Path) -> None:
    change_weights(folder, lambda weights: weights.update({key: pad(t, 24) for key, t in weights.items()}))
    adapter = with_config(folder, r=24)
    assert problems(adapter, base, rank=16) == ["adapter tuned: rank 24 exceeds max-lora-rank (16)"]
    assert problems(adapter, base, rank=32) == []


def test_features_unsupported_by_vllm_are_rejected_for_vllm_only(folder: Path, base: Path) -> None:
    adapter = with_config(folder, use_dora=True, modules_to_save=["lm_head"], bias="all")
    messages = " ".join(problems(adapter, base))
    assert "use_dora" in messages and "modules_to_save" in messages and "bias" in messages
    assert problems(adapter, base, kind="transformers") == []


def test_patterns_are_rejected_for_vllm_only(folder: Path, base: Path) -> None:
    adapter = with_config(folder, rank_pattern={"q_proj": 24})
    assert adapter.rank == 24
    assert "vLLM ignores rank_pattern" in problems(adapter, base)[0]
    assert problems(adapter, base, kind="transformers") == []


@pytest.mark.parametrize(("ranks", "allowed"), [([4], 8), ([8, 16], 16), ([17], 32), ([300], 320), ([513], 512)])
def test_ranks_are_rounded_up_to_those_of_vllm(ranks: list[int], allowed: int) -> None:
    assert adapter_compat.vllm_rank(ranks) == allowed


def test_invalid_directories_are_rejected(folder: Path, base: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    assert "not a safetensors file" in problems(adapter_compat.read("tuned", folder), base)[0]
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(ValueError, match="peft_type must be LORA"):
        adapter_compat.read("tuned", folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        adapter_compat.read("tuned", folder)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"adapter_config.json and adapter_model.safetensors not found in"):
        adapter_compat.read("tuned", folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"target_modules": "(.*)*q_proj"}, "target_modules must be a list of names"),
        ({"target_modules": ["q_proj", "(a+)+$"]}, "target_modules must be a list of names"),
        ({"exclude_modules": ".*"}, "exclude_modules must be a list of names"),
        ({"layer_replication": [[0, 1000000]]}, "layer_replication is not supported"),
        ({"megatron_config": {}, "megatron_core": "os"}, ""),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config is not supported"),
        ({"r": 10**9}, "integers from 1 to 4096"),
        ({"r": "16"}, "integers from 1 to 4096"),
        ({"r": -1}, "integers from 1 to 4096"),
        ({"rank_pattern": {"q_proj": 10**9}}, "integers from 1 to 4096"),
        ({"rank_pattern": {"(a+)+$": 8}}, "rank_pattern must map names"),
        ({"alpha_pattern": ["q_proj"]}, "alpha_pattern must map names"),
    ],
)
def test_harmful_settings_are_rejected(folder: Path, config: dict[str, Any], message: str) -> None:
    if not message:
        with_config(folder, **config)
        return
    with pytest.raises(ValueError, match=message):
        with_config(folder, **config)


def pad(weight: torch.Tensor, rank: int) -> torch.Tensor:
    """Return lora_A or lora_B of the tiny model (rank 4) with a larger rank."""
    rows, columns = (rank if size == 4 else size for size in weight.shape)
    padded = torch.zeros(rows, columns)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    return padded


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> ServedAdapter:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return adapter_compat.read("tuned", folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_rejected(folder: Path, base: Path, dtype: torch.dtype, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        for key in weights:
            weights[key] = weights[key].to(dtype)
        weights[max(weights)][-1, -1] = value

    assert "has NaN or infinite values" in problems(change_weights(folder, spoil), base)[0]


def first(weights: dict[str, torch.Tensor], part: str) -> str:
    return next(key for key in sorted(weights) if part in key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(first(w, "lora_B")), "has only one of lora_A and lora_B"),
        (lambda w: [w.pop(key) for key in list(w) if "layers.1.self_attn.q_proj" in key], "the file is incomplete"),
        (
            lambda w: w.update({key.replace("layers.1", "layers.99"): w.pop(key) for key in list(w) if ".1." in key}),
            "layers.99.self_attn.q_proj does not exist",
        ),
        (lambda w: w.update({key: t[:2].clone() for key, t in w.items() if "lora_A" in key}), "has rank 2 in lora_A"),
        (lambda w: [w.pop(key) for key in list(w)], "it has no LoRA weights"),
    ],
)
def test_weights_that_do_not_fit_are_rejected(
    folder: Path, base: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str
) -> None:
    (problem, *_) = problems(change_weights(folder, change), base)
    assert message in problem


def test_a_rank_other_than_the_configured_one_is_rejected(folder: Path, base: Path) -> None:
    assert "has rank 4, but adapter_config.json has 8" in problems(with_config(folder, r=8), base)[0]
    assert problems(with_config(folder, r=4, layers_to_transform=[0]), base) == []


def test_truncated_weights_are_rejected(folder: Path, base: Path) -> None:
    file = folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    for size in (0, 4, 8, 100, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert "not a safetensors file" in problems(adapter_compat.read("tuned", folder), base)[0], size
