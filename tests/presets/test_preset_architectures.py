"""The facts of tunable models match the models that transformers builds (on the meta device, without weights)."""

import json
from pathlib import Path

import pytest

import presets
from presets.derive import HubMetadata, derive

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TYPES = {
    "Phi3ForCausalLM": "phi3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "FalconForCausalLM": "falcon",
}


def build(facts):
    settings = {
        "hidden_size": facts.hidden_size,
        "num_hidden_layers": facts.layers,
        "num_attention_heads": facts.heads,
        "vocab_size": facts.vocab_size,
        "pad_token_id": 0,
    }
    if facts.architecture == "FalconForCausalLM":
        new = facts.kv_heads > 1
        settings |= {"num_kv_heads": facts.kv_heads, "new_decoder_architecture": new, "multi_query": not new}
        settings |= {"ffn_hidden_size": facts.intermediate_size}
    else:
        settings |= {"num_key_value_heads": facts.kv_heads, "intermediate_size": facts.intermediate_size}
        settings |= {"tie_word_embeddings": facts.tied_embeddings}
    config = transformers.AutoConfig.for_model(TYPES[facts.architecture], **settings)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


DERIVED = [m for m in presets.models() if m.tuning and m.linears]


@pytest.mark.parametrize("facts", [m for m in presets.models() if m.tuning and not m.linears], ids=lambda m: m.name)
def test_layers_and_size(facts):
    model = build(facts)
    assert type(model).__name__ == facts.architecture
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    assert set(facts.lora_targets) == linear - {"lm_head"}
    assert model.num_parameters() * 2 / 2**30 == pytest.approx(facts.weights_gib, abs=0.006)


@pytest.mark.parametrize("facts", DERIVED, ids=lambda m: m.name)
def test_derived_facts(facts):
    """``test_architectures.py`` compares the same configurations with transformers."""
    file = Path(__file__).parent / "configs" / f"{facts.repository.replace('/', '--')}.json"
    files = {"model.safetensors": 0, "chat_template.jinja": 0}
    expected = derive(HubMetadata(facts.repository, facts.revision, json.loads(file.read_text()), files=files))
    published = {"name", "licence", "gated", "weights_gib", "stop_token_ids", "vllm"}
    assert facts.model_dump(exclude=published) == expected.model_dump(exclude=published)
    assert not expected.cannot_tune and not expected.cannot_serve and not expected.cannot_serve_adapters
    assert expected.weights_gib <= facts.weights_gib + 0.006  # those with images are larger than their text part
