"""Memory estimates: manual calculations for one model, and invariants for every model and setting."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import presets
from workflows.estimate import cost, memory, shapes
from workflows.estimate.memory import Training
from workflows.estimate.serving import Serving, serving

GIB = 2**30
TUNABLE = [model.name for model in presets.models() if model.tuning]
PLAIN = dataclasses.replace(memory.GPU, context_gib=0, margin=0)

settings = st.builds(
    Training,
    method=st.sampled_from(["lora", "qlora"]),
    batch_size=st.integers(1, 64),
    length=st.integers(1, 16384),
    rank=st.integers(1, 256),
    checkpointing=st.booleans(),
    attention=st.sampled_from(["sdpa", "eager"]),
    dropout=st.booleans(),
    logit_bytes=st.sampled_from([0, memory.ALL_LOGITS_BYTES]),
    optimizer=st.sampled_from(["adamw_torch_fused", "paged_adamw_8bit", "sgd", "lion_32bit"]),
    gpus=st.sampled_from([1, 2, 4, 8]),
)
models = st.sampled_from(TUNABLE).map(lambda name: shapes.of(presets.model(name)))


def llama(**changes):
    return memory.tuning(
        shapes.of(presets.model("llama-3.1-8b-instruct")),
        Training(**{"method": "qlora", "batch_size": 1, "length": 1024, "rank": 8} | changes),
        PLAIN,
    )


@pytest.mark.parametrize("name", TUNABLE)
def test_shapes_give_the_parameter_count_of_the_published_weights(name):
    facts = presets.model(name)
    size = shapes.of(facts).parameters * 2 / GIB
    if facts.architecture.endswith("ForConditionalGeneration"):
        assert 0.85 * facts.weights_gib < size < facts.weights_gib  # without the part for images
    else:
        assert size == pytest.approx(facts.weights_gib, abs=0.006)


def test_a_model_without_linear_layers_has_no_shapes():
    with pytest.raises(shapes.UnknownShapes):
        shapes.of(presets.model("gpt-oss-20b"))


def test_weights_match_a_manual_calculation():
    # Llama 3.1 8B, a block: q and o 4096 x 4096, k and v 4096 x 1024, gate, up and down 4096 x 14336.
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    other = 2 * 128256 * 4096 + 65 * 4096
    assert linear == 6_979_321_856
    # QLoRA paper, section 3: 8/64 + 32/(64 * 256) = 0.127 bits a parameter instead of 0.5.
    tables = 224 * (16 + 256) * 4
    assert llama().weights * GIB == pytest.approx(linear * (0.5 + 0.126953125 / 8) + tables + 2 * other)
    assert llama(double_quantization=False).weights * GIB == pytest.approx(
        linear * (0.5 + 0.5 / 8) + tables + 2 * other
    )
    assert llama(bits=8).weights * GIB == pytest.approx(linear + 2 * other)
    assert llama(method="lora").weights * GIB == pytest.approx(2 * (linear + other))


def test_adapter_matches_a_manual_calculation():
    # Rank 8 on all layers: 8 x (inputs + outputs) of each.
    parameters = 32 * 8 * (2 * 8192 + 2 * 5120 + 3 * 18432)
    assert parameters == 20_971_520
    found = llama()
    assert (found.adapter * GIB, found.gradients * GIB) == (4 * parameters, 4 * parameters)
    assert found.optimizer * GIB == 8 * parameters
    assert llama(optimizer="paged_adamw_8bit").optimizer * GIB == pytest.approx(2 * (1 + 4 / 256) * parameters)
    attention = llama(targets=("q_proj", "v_proj"))
    assert attention.adapter * GIB == 4 * 32 * 8 * (8192 + 5120)
    assert llama(targets=("model.layers.self_attn.q_proj", "v_proj")) == attention
    assert llama(targets=("all-linear",)) == found


def test_activations_and_logits_match_a_manual_calculation():
    tokens, hidden = 1024, 4096
    mask, last = 2 * tokens**2, 6 * hidden * tokens
    assert llama().activations * GIB == 32 * 2 * hidden * tokens + last + mask
    # Two norms in float32 and their outputs; queries, keys, values, attention's output twice, sums of the softmax;
    # four of the MLP; outputs of the adapters' first matrices.
    layer = 2 * 4 * hidden + 2 * 2 * hidden + 5 * 2 * hidden + 4 * 32 + 4 * 2 * 14336 + 2 * 8 * 7
    kept = 32 * tokens * layer + 2 * 20_971_520 + last + mask
    assert llama(checkpointing=False).activations * GIB == kept
    assert llama().logits * GIB == tokens * 32768 * 2 + tokens * hidden * 6
    assert llama(logit_bytes=12).logits * GIB == tokens * 128256 * 12


@given(models, settings)
def test_components_sum_and_none_is_negative(model, training):
    found = memory.tuning(model, training)
    assert found.total == pytest.approx(sum(found.components().values()))
    assert all(size >= 0 for size in found.components().values())


@given(models, settings, st.sampled_from(["batch_size", "length", "rank"]), st.integers(1, 100))
def test_increasing_a_setting_never_reduces_memory(model, training, setting, more):
    larger = dataclasses.replace(training, **{setting: getattr(training, setting) + more})
    assert memory.tuning(model, larger).total >= memory.tuning(model, training).total


@given(models, settings)
def test_memory_saving_settings_never_increase_memory(model, training):
    def total(**changes):
        return memory.tuning(model, dataclasses.replace(training, **changes)).total

    assert total(checkpointing=True) <= total(checkpointing=False)
    assert total(optimizer="paged_adamw_8bit") <= total(optimizer="adamw_torch_fused")
    assert total(logit_bytes=0) <= total(logit_bytes=memory.ALL_LOGITS_BYTES)
    assert total(dropout=False) <= total(dropout=True)
    assert total(attention="sdpa") <= total(attention="eager")
    assert total(gpus=2) <= total(gpus=1)


@given(models, settings)
def test_qlora_needs_less_than_lora(model, training):
    quantized, plain = (memory.tuning(model, dataclasses.replace(training, method=m)) for m in ("qlora", "lora"))
    assert quantized.weights < plain.weights
    # The widest layer is dequantized in its backward pass; quantizing all layers saves more.
    assert quantized.total < plain.total


@given(st.sampled_from([m.name for m in presets.models()]), st.integers(1024, 131072), st.integers(1, 16))
def test_serving_components_sum_and_grow(name, length, adapters):
    model = presets.model(name)
    found = serving(model, Serving(length=length, adapters=adapters))
    assert found.total == pytest.approx(sum(found.components().values()))
    longer = serving(model, Serving(length=2 * length, adapters=2 * adapters))
    if model.sliding_window:
        assert found.cache <= longer.cache < 2 * found.cache + 1e-6
    else:
        assert longer.cache == pytest.approx(2 * found.cache)
    assert longer.adapters == pytest.approx(2 * found.adapters)


def test_cache_matches_a_manual_calculation():
    # Llama 3.1 8B: keys and values of 8 heads of 128, 32 layers, 2 bytes: 128 KiB a token.
    found = serving(presets.model("llama-3.1-8b-instruct"), Serving(length=8192))
    assert found.cache == 1.0
    assert found.weights == 14.96
    assert found.longest(found.total + 1) == 16384
    assert found.longest(1000) == 131072
    half = serving(
        presets.model("llama-3.1-8b-instruct"),
        Serving.from_flags({"kv_cache_dtype": "fp8", "max-model-len": 8192}, 1, 0, 16),
    )
    assert half.cache == 0.5
    assert serving(presets.model("llama-3.1-8b-instruct"), Serving(length=8192, gpus=2)).cache == 0.5


@pytest.mark.parametrize("value", ["many", None, -1, 0, [], "0x8"])
def test_non_numeric_flags_are_ignored(value):
    flags = (
        "max-num-seqs",
        "gpu-memory-utilization",
        "tensor-parallel-size",
        "max-num-batched-tokens",
        "max-model-len",
    )
    assert Serving.from_flags(dict.fromkeys(flags, value), 2, 0, 16) == Serving(gpus=2)


def test_speed_matches_a_manual_calculation():
    model = shapes.of(presets.model("llama-3.1-8b-instruct"))
    training = Training("lora", 1, 2000, checkpointing=False)
    # 4 operations a parameter, and attention's: half of all pairs of tokens, QK and AV, each forward and backward.
    operations = 4 * (model.linear_parameters + 128256 * 4096 + 32 * 4096 * 2000)
    expected = 0.48 * 2000 / 2200 * 312e12 / operations
    assert cost.tokens_per_second(model, training, 312) == pytest.approx(expected)
    again = cost.tokens_per_second(model, dataclasses.replace(training, checkpointing=True), 312)
    assert again == pytest.approx(expected * 4 / 6)
