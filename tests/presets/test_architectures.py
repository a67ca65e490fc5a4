"""Layers and parameters computed from a configuration are those of the model that transformers builds from it.

The models are built on the meta device, without weights. ``configs/README.md`` has the origin of the configurations.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import presets
from presets.architectures import Config, Layers, UnknownArchitecture, dense, describe, experts, hybrid
from presets.architectures import config as configs
from presets.architectures.describe import SINGULAR

FOLDER = Path(__file__).parent / "configs"
FILES = sorted(FOLDER.glob("*.json"))
RANK = 8
QUICK = (
    "Qwen--Qwen3-0.6B",
    "google--gemma-3-1b-it",
    "LiquidAI--LFM2-1.2B",
    "tiiuae--falcon-7b-instruct",
    "openai--gpt-oss-20b",
)
NOT_SIZES = ("model_type", "architectures", "quantization_config")
"""Different kinds of blocks that are built in a second."""


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def layers_of(name: str) -> Layers:
    return describe(Config(read(name)))


def build(content: dict[str, Any]) -> Any:
    """Build the text model, as ``AutoModelForCausalLM`` loads it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    values = {
        key: value
        for key, value in content.items()
        if key not in ("model_type", "architectures", "quantization_config")
    }
    config = transformers.AutoConfig.for_model(content["model_type"], **values).get_text_config()
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def linear_layers(model: Any) -> Counter[tuple[str, int, int]]:
    import torch

    head = model.get_output_embeddings()
    return Counter(
        (name.rpartition(".")[2], layer.in_features, layer.out_features)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    )


def adapter_parameters(model: Any, targets: tuple[str, ...]) -> int:
    import peft

    config = peft.LoraConfig(r=RANK, target_modules=list(targets), task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def check(name: str) -> None:
    layers, model = layers_of(name), build(read(name))
    assert layers.parameters == model.num_parameters()
    found = Counter({(linear.name, linear.inputs, linear.outputs): linear.count for linear in layers.linears})
    assert found == linear_layers(model)
    adapted = [linear for linear in layers.linears if linear.name in layers.targets]
    counted = sum(RANK * linear.count * (linear.inputs + linear.outputs) for linear in adapted)
    assert counted == adapter_parameters(model, layers.targets)


@pytest.mark.parametrize("name", QUICK)
def test_layers_are_those_of_transformers(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_layers_of_all_models_are_those_of_transformers(name: str) -> None:
    check(name)


def test_the_set_covers_enough_models() -> None:
    types = {Config(json.loads(file.read_text())).model_type for file in FILES}
    assert len(FILES) >= 100
    assert len(types) >= 45
    assert all(file.stem in (FOLDER / "README.md").read_text().replace("/", "--") for file in FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_size_of_a_known_model_is_that_of_its_repository(file: Path) -> None:
    """The catalog has the sizes that KAITO read from the hub; those with images are larger than their text part."""
    content = json.loads(file.read_text())
    try:
        known = presets.model(file.stem.replace("--", "/"))
    except presets.UnknownPreset:
        return
    size = 2 * describe(Config(content)).parameters / 2**30
    if "text_config" in content or known.quantization:
        return
    assert size == pytest.approx(known.weights_gib, abs=0.006)


@pytest.mark.parametrize(
    ("name", "values", "window_values", "window"),
    [
        ("meta-llama--Llama-3.1-8B-Instruct", 32 * 2 * 8 * 128, 0, 0),
        ("Qwen--Qwen3-8B", 36 * 2 * 8 * 128, 0, 0),
        ("Qwen--Qwen3.5-9B", 8 * 2 * 4 * 256, 0, 0),
        ("openai--gpt-oss-20b", 12 * 2 * 8 * 64, 12 * 2 * 8 * 64, 128),
        ("google--gemma-3-27b-it", 10 * 2 * 16 * 128, 52 * 2 * 16 * 128, 1024),
        ("deepseek-ai--DeepSeek-V3-0324", 61 * 576, 0, 0),
        ("tiiuae--falcon-7b-instruct", 32 * 2 * 1 * 64, 0, 0),
        ("ibm-granite--granite-4.0-h-tiny", 4 * 2 * 4 * 128, 0, 0),
        ("CohereLabs--c4ai-command-r7b-12-2024", 8 * 2 * 8 * 128, 24 * 2 * 8 * 128, 4096),
        ("microsoft--Phi-3-mini-4k-instruct", 0, 32 * 2 * 32 * 96, 2047),
    ],
)
def test_values_that_a_server_keeps_for_a_token(name: str, values: int, window_values: int, window: int) -> None:
    cache = layers_of(name).cache
    assert (cache.values, cache.window_values, cache.window) == (values, window_values, window)


def test_experts_are_counted_and_not_adapted() -> None:
    layers = layers_of("Qwen--Qwen3-30B-A3B")
    assert layers.experts == 48 * 128 * 3 * 2048 * 768
    assert layers.targets == ("q_proj", "k_proj", "v_proj", "o_proj")


def test_a_null_overrides_the_default_of_transformers() -> None:
    assert "q_proj" in layers_of("deepseek-ai--DeepSeek-V2-Lite-Chat").targets
    assert layers_of("mistralai--Mistral-7B-Instruct-v0.3").cache.window == 0


NUMBERS = st.integers(-(2**70), 2**70) | st.floats()
VALUES = st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.lists(st.integers(), max_size=3)


@given(st.sampled_from(FILES), st.data())
def test_damaged_configurations_are_unknown_architectures(file: Path, data: st.DataObject) -> None:
    content = json.loads(file.read_text())
    inner = content.get("text_config", content)
    keys = data.draw(st.lists(st.sampled_from(sorted(inner)), min_size=1, max_size=3))
    inner.update({key: data.draw(VALUES) for key in keys})
    try:
        assert describe(Config(content)).parameters >= 0
    except UnknownArchitecture as error:
        assert str(error)


def test_defaults_are_those_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    package = Path(configs.__file__).parent
    used = set(re.findall(r'"(\w+)"', "".join(file.read_text() for file in package.glob("*.py"))))
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({*dense.FAMILIES, *experts.MODELS, *hybrid.MODELS, *SINGULAR}):
        fields = dataclasses.fields(transformers.CONFIG_MAPPING[kind])
        defaults = {field.name: field.default for field in fields if field.name in used - {"model_type"}}
        simple = {name: value for name, value in defaults.items() if isinstance(value, bool | int | float | str)}
        found[kind] = dict(sorted(configs._renamed(simple).items()))
    if os.environ.get("ARGOTUNE_REGENERATE"):
        configs.DEFAULTS.write_text(json.dumps(found, indent=1) + "\n")
    assert json.loads(configs.DEFAULTS.read_text()) == found
