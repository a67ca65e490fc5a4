"""The terms of the estimate that depend on the architecture equal what autograd saves in transformers' layers."""

import dataclasses
import importlib

import pytest

import presets
from presets.architectures import Config
from presets.architectures.hybrid import scan
from workflows.estimate import memory, scan_memory, shapes
from workflows.estimate.memory import Training

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

GIB = 2**30
TRAINING = Training("qlora", 1, 1024, checkpointing=False)


def saved_bytes(compute, *parameters):
    """Return the bytes that autograd saves during ``compute``, except parameters; each storage counts once."""
    storages = {}

    def save(tensor):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        result = compute()
    known = {parameter.untyped_storage()._cdata for parameter in parameters}
    assert result.requires_grad
    return sum(storage.nbytes() for key, storage in storages.items() if key not in known)


def change_in_activations(model, **changes):
    sizes = shapes.of(presets.model(model))
    before, after = (memory.tuning(each, TRAINING) for each in (sizes, dataclasses.replace(sizes, **changes)))
    return (before.activations - after.activations) * GIB


@pytest.mark.parametrize("norm", ["qwen3.Qwen3RMSNorm", "gemma3.Gemma3RMSNorm", "olmo2.Olmo2RMSNorm"])
def test_norms_of_queries_and_keys_keep_a_copy_in_float32(norm):
    module, _, name = norm.partition(".")
    layer = getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), name)(128)
    layer = layer.to(torch.bfloat16).requires_grad_(False)
    queries = torch.zeros(1, 64, 16, 128, dtype=torch.bfloat16, requires_grad=True)
    # The inverse root has one value per head; Gemma's scale has one per dimension.
    assert saved_bytes(lambda: layer(queries), layer.weight) == pytest.approx(4 * queries.numel(), rel=0.01)


def test_queries_and_keys_count_if_they_are_normalized():
    # Qwen3 8B: 32 query heads and 8 key heads of 128, 36 layers.
    assert change_in_activations("qwen3-8b", qk_norm=False) == pytest.approx(36 * 1024 * 4 * (32 + 8) * 128)
    assert change_in_activations("llama-3.1-8b-instruct", qk_norm=False) == 0


STATES = {
    "granitemoehybrid.GraniteMoeHybridMambaLayer": {
        "model_type": "granitemoehybrid",
        "layer_types": ["mamba"],
        "mamba_n_heads": 32,
        "mamba_d_head": 16,
        "mamba_d_state": 32,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 64,
    },
    "qwen3_5.Qwen3_5GatedDeltaNet": {
        "model_type": "qwen3_5_text",
        "layer_types": ["linear_attention"],
        "linear_num_key_heads": 4,
        "linear_num_value_heads": 8,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 64,
        "linear_conv_kernel_dim": 4,
    },
}


@pytest.mark.parametrize("name", STATES)
def test_blocks_with_a_state_save_what_the_estimate_counts(name):
    import transformers

    module, _, block = name.partition(".")
    values = STATES[name] | {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 8}
    config = transformers.AutoConfig.for_model(**values, pad_token_id=0)
    layer = getattr(importlib.import_module(f"transformers.models.{module}.modeling_{module}"), block)(config, 0)
    layer = layer.to(torch.bfloat16).requires_grad_(False)
    hidden = torch.zeros(2, 512, 256, dtype=torch.bfloat16, requires_grad=True)

    def compute():
        with torch.autocast("cpu", torch.bfloat16):
            return layer(hidden)

    found = saved_bytes(compute, *layer.parameters())
    assert scan_memory.saved_bytes(scan(Config(values))) * 2 * 512 == pytest.approx(found, rel=0.03)


def test_blocks_with_a_state_count_instead_of_attention():
    # Qwen3.5 9B: 24 of 32 layers; per token and head 128 values and keys, convolution of 8192, chunks of 64.
    block = scan_memory.saved_bytes(presets.model("qwen3.5-9b").scan)
    assert block == 4 * 8192 + (38 + 26) * 32 * 128 + 14 * 32 * 64 + 8 * 32 * 128 * 128 / 64
    attention = 4 * (16 + 4) * 256 + 2 * 4 * 16 * 256 + 4 * 16
    assert change_in_activations("qwen3.5-9b", scan=None) == pytest.approx(24 * 1024 * (block - attention))


def test_falcon_has_one_key_head():
    values = {"model_type": "falcon", "num_attention_heads": 71, "hidden_size": 4544}
    assert Config(values).kv_heads == Config(values | {"num_kv_heads": 71}).kv_heads == 1
    assert Config(values | {"multi_query": False}).kv_heads == 71
    assert Config(values | {"new_decoder_architecture": True, "num_kv_heads": 8}).kv_heads == 8


def test_rows_are_padded_to_full_chunks():
    model = presets.model("qwen3.5-9b")
    assert [scan_memory.padded(length, model.scan) for length in (1, 64, 65)] == [64, 64, 128]


def test_the_width_of_the_mlp_is_that_of_its_layers():
    values = {"intermediate_size": 12288}
    linears = [{"name": "w1", "inputs": 2048, "outputs": 8192}, {"name": "w2", "inputs": 8192, "outputs": 2048}]
    model = presets.model("qwen3-8b").model_copy(update=values)
    adjusted = type(model).model_validate(model.model_dump() | {"linears": linears})
    assert shapes.of(model).intermediate == 12288
    assert shapes.of(adjusted).intermediate == 8192
