from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
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
