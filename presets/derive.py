"""A preset from what the hub publishes about a model: configuration, sizes, tokenizer and license, not its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from presets import loader
from presets.architectures import Config, ImpossibleSizes, Layers, UnknownArchitecture, describe, is_known
from presets.facts import Model

GIB = 2**30
BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of a value, by the type's name in safetensors files."""
MULTIMODAL_TUNABLE = {
    "Gemma3ForConditionalGeneration",
    "Gemma4ForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration",
}
"""Models with images whose text part transformers loads for language modeling (``AutoModelForCausalLM``)."""

NOT_LOADED = {"Glm4ForCausalLM": {"gate_up_proj"}, "GlmForCausalLM": {"gate_up_proj"}}
"""Layers whose adapters vLLM rejects when it loads them, by architecture."""


@dataclass(frozen=True)
class HubMetadata:
    """A model on the hub, at one commit."""

    repository: str
    commit: str
    config: Mapping[str, Any]
    requested: str = ""
    """The revision that was asked for; empty: the default branch."""
    license: str = ""
    gated: bool = False
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    """Sizes in bytes by name; 0 if unknown."""
    index: Mapping[str, Any] = field(default_factory=dict)
    """``model.safetensors.index.json``."""
    parameters: Mapping[str, int] = field(default_factory=dict)
    """Number of values in safetensors files, by type."""


class NotAModel(ValueError):
    """The configuration lacks values without which nothing can be decided."""


def derive(hub: HubMetadata) -> Model:
    """Return the preset of a model.

    Raises:
        NotAModel: ``config.json`` is not that of a language model.
    """
    config = Config(hub.config)
    architectures = hub.config.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else ""
    if not isinstance(architecture, str) or not architecture:
        raise NotAModel("config.json names no architecture")
    try:
        return _derive(hub, config, architecture)
    except UnknownArchitecture as error:
        raise NotAModel(str(error)) from None
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise NotAModel(f"config.json has impossible sizes ({fields})") from None


def _derive(hub: HubMetadata, config: Config, architecture: str) -> Model:
    values = _sizes(config)
    layers, unknown = _layers(config)
    known = loader.find_packaged(hub.repository)
    quantization = _quantization(hub.config)
    tune = _cannot_tune(hub, config, architecture, quantization, unknown)
    return Model.model_validate(
        {
            "name": hub.repository + (f"@{hub.requested}" if hub.requested else ""),
            "repository": hub.repository,
            "revision": hub.commit,
            "licence": hub.license or "unknown",
            "gated": hub.gated,
            "architecture": architecture,
            **values,
            "quantization": quantization,
            "weights_gib": round(_weights_bytes(hub, layers) / GIB, 2),
            **(_from_layers(layers, hub, architecture) if layers else {}),
            "experts": config.get("num_local_experts") or 0,
            "stop_token_ids": _stop_tokens(hub, config),
            "cannot_tune": tune,
            "cannot_serve": _cannot_serve(hub, architecture),
            "cannot_serve_adapters": _cannot_serve_adapters(architecture),
            "tuning": not tune,
            "chat_template": _chat_template(hub),
            "vllm": known.vllm if known else {},
        }
    )


def _sizes(config: Config) -> dict[str, Any]:
    return {
        "context_length": config.context,
        "hidden_size": config.hidden,
        "layers": config.layers,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim if config.head_dim * config.heads != config.hidden else None,
        "intermediate_size": config.inner,
        "vocab_size": config.vocabulary,
        "tied_embeddings": config.tied,
    }


def _layers(config: Config) -> tuple[Layers | None, str]:
    """Return the layers, or why they are unknown.

    Raises:
        ImpossibleSizes: no such model exists.
    """
    try:
        return describe(config), ""
    except ImpossibleSizes:
        raise
    except UnknownArchitecture as error:
        return None, str(error)


def _from_layers(layers: Layers, hub: HubMetadata, architecture: str) -> dict[str, Any]:
    published = sum(hub.parameters.values())
    return {
        # The published number includes image towers; tied heads can be stored twice.
        "parameters": max(layers.parameters, published if published > 1.2 * layers.parameters else 0),
        "linears": [linear.model_dump() for linear in layers.linears],
        "norms": layers.norms,
        "qk_norm": layers.qk_norm,
        "cache_values": layers.cache.values,
        "window_values": layers.cache.window_values,
        "sliding_window": layers.cache.window,
        "latent_cache": layers.cache.latent,
        "stateful": layers.stateful,
        "scan": layers.scan.model_dump() if layers.scan else None,
        "lora_targets": [name for name in layers.targets if name not in NOT_LOADED.get(architecture, ())],
    }


def _weights_bytes(hub: HubMetadata, layers: Layers | None) -> int:
    """Return the size of the weights in the format of transformers."""
    sizes = sum(size for name, size in hub.files.items() if re.fullmatch(r"(?!consolidated)[^/]*\.safetensors", name))
    metadata = hub.index.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
    counted = sum(count * BYTES.get(kind, 2) for kind, count in hub.parameters.items())
    found = next((size for size in (total, counted, sizes) if isinstance(size, int) and size > 0), 0)
    return found or (2 * layers.parameters if layers else 0)


def _quantization(config: Mapping[str, Any]) -> str:
    given = config.get("quantization_config")
    if not isinstance(given, Mapping) and isinstance(config.get("text_config"), Mapping):
        given = config["text_config"].get("quantization_config")
    if not isinstance(given, Mapping) or not given:
        return ""
    return str(given.get("quant_method") or given.get("quant_algo") or "quantized")


def _stop_tokens(hub: HubMetadata, config: Config) -> list[int]:
    given = hub.generation_config.get("eos_token_id", config.get("eos_token_id"))
    tokens = given if isinstance(given, list) else [given]
    return [token for token in tokens if isinstance(token, int) and not isinstance(token, bool)]


def _chat_template(hub: HubMetadata) -> str:
    has_file = "chat_template.jinja" in hub.files or "chat_template.json" in hub.files
    return "tokenizer" if has_file or hub.tokenizer_config.get("chat_template") else "none"


def _cannot_tune(hub: HubMetadata, config: Config, architecture: str, quantization: str, unknown: str) -> str:
    """Return the first reason for which a model cannot be tuned; empty if there is none."""
    if reason := _custom_code(hub):
        return reason
    if unknown:
        return unknown
    if not any(name.endswith(".safetensors") for name in hub.files):
        return "it has no weights in safetensors format"
    if quantization:
        return f"its weights are quantized already ({quantization}), and adapters train on a bfloat16 copy"
    if config.multimodal and architecture not in MULTIMODAL_TUNABLE:
        return f"transformers does not load the text part of {architecture} for language modeling"
    if not architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return f"{architecture} is not a language model"
    return ""


def _cannot_serve(hub: HubMetadata, architecture: str) -> str:
    if reason := _custom_code(hub):
        return reason
    known = loader.vllm_architectures()
    return "" if architecture in known.lora else f"vLLM {known.version} has no architecture {architecture}"


def _cannot_serve_adapters(architecture: str) -> str:
    known = loader.vllm_architectures()
    return "" if known.lora.get(architecture) else f"vLLM {known.version} serves no adapters of {architecture}"


def _custom_code(hub: HubMetadata) -> str:
    """Return why the model needs Python code of its repository: transformers and vLLM do not have its class.

    Many repositories still have the code of models that the libraries have adopted since; it is not used then.
    """
    model_type = str(hub.config.get("model_type") or "")
    architecture = next(iter(hub.config.get("architectures") or [""]), "")
    needs = "auto_map" in hub.config and not (is_known(model_type) or is_known(f"{model_type}_text"))
    if needs and architecture not in loader.vllm_architectures().lora:
        return "it needs the Python code of its repository (trust_remote_code), which is not run"
    has_own_tokenizer = isinstance(hub.tokenizer_config.get("auto_map"), Mapping)
    if has_own_tokenizer and "tokenizer.json" not in hub.files:
        return "its tokenizer needs the Python code of its repository (trust_remote_code), which is not run"
    return ""
