"""The base model on a CUDA device: dtype, device, attention, NF4 weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import trainable_model

from steps.evaluate import evaluated_models
from steps.models import compute_dtype, model
from steps.runtime import machine
from steps.tune import launcher

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trainable_model.make_model(tmp_path_factory.mktemp("gpu") / "model")


def test_the_device_is_described(tmp_path: Path) -> None:
    import torch

    assert model.choose_device() == "cuda"
    assert torch.cuda.get_device_name(0) in model.describe_device("cuda")
    assert machine.is_torch_built_with_cuda()
    assert len(machine.read(tmp_path).gpus) == torch.cuda.device_count() == launcher.count(0, tmp_path)


def test_the_compute_capability_determines_the_dtype(base: Path) -> None:
    import torch

    expected = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    assert compute_dtype.compute_dtype("cuda", base) == expected
    assert compute_dtype.describe_compute("cuda", base, expected) == f"computing in {expected}"


def test_attention_uses_flash_attention_if_it_is_installed() -> None:
    from transformers.utils import is_flash_attn_2_available

    assert model.attention("cuda") == (model.FLASH if is_flash_attn_2_available() else "")


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_weights_are_loaded_onto_the_gpu(base: Path, method: str) -> None:
    import torch
    from bitsandbytes.nn import Linear4bit

    loaded = model.load_base(base, method, {}, "cuda", gpu=0)
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cuda"}
    layer = loaded.model.layers[0].self_attn.q_proj
    assert isinstance(layer, Linear4bit) == (method == "qlora")
    tokens = torch.tensor([[5, 6, 7]], device="cuda")
    assert torch.isfinite(loaded(tokens).logits).all()


def test_nf4_weights_are_those_of_a_cpu(base: Path) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit

    weights = [
        model.load_base(base, "qlora", {}, device, dtype="float32").model.layers[0].mlp.up_proj.weight
        for device in ("cpu", "cuda")
    ]
    cpu, gpu = (dequantize_4bit(weight, weight.quant_state).float().cpu() for weight in weights)
    torch.testing.assert_close(gpu, cpu, atol=1e-3, rtol=1e-2)


def test_free_memory_of_all_gpus_counts() -> None:
    import torch

    total = sum(torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count()))
    assert 0 < evaluated_models._free_gib("cuda") <= total / machine.GIB
