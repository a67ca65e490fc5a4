"""GPU memory of serving a model and its adapters with vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import presets
from workflows.estimate import shapes
from workflows.estimate.memory import GIB

# vLLM's defaults (EngineArgs).
UTILIZATION = 0.9
BATCHED_TOKENS = 8192
SEQUENCES = 256
ADAPTER_RANK = 16

ADAPTER_BYTES = 2
CONTEXT_GIB = 0.8
GRAPHS_GIB = 0.5
"""CUDA graphs of the decoding step; none with ``enforce-eager``."""
LATENT_WIDTH = 576
"""Multi-head latent attention caches one vector of 512 + 64 values per token and layer (DeepSeek-V2 paper, 2.1)."""
LATENT = ("Deepseek", "MistralLarge3", "KimiK2", "GlmMoeDsa")
# Architectures whose layers all attend to all tokens, with separate keys and values. For others (windows, layers
# without attention, shared layers) the cache size is an upper bound.
PLAIN = (
    "FalconForCausalLM",
    "GraniteForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
MIN_CONTEXT = 1024
"""Minimum useful context length in tokens."""


@dataclass(frozen=True)
class Serving:
    """Settings that determine the memory of serving."""

    length: int | None = None
    """``max-model-len``; None: the longest context that fits."""
    sequences: int = SEQUENCES
    utilization: float = UTILIZATION
    cache_bytes: int = 2
    batched_tokens: int = BATCHED_TOKENS
    adapters: int = 0
    """Maximum adapters on the GPU."""
    adapter_rank: int = ADAPTER_RANK
    graphs: bool = True
    gpus: int = 1
    """Tensor parallel size."""
    nodes: int = 1
    """Pipeline parallel size: each node has a part of the layers."""

    @classmethod
    def from_flags(cls, arguments: Mapping[str, Any], gpus: int, adapters: int, rank: int, nodes: int = 1) -> Serving:
        """Create the settings from vLLM's flags; other flags are ignored."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        length = given.get("max-model-len")
        return cls(
            length=length if isinstance(length, int) and length > 0 else None,
            sequences=_whole(given, "max-num-seqs", SEQUENCES),
            utilization=_share(given, "gpu-memory-utilization", UTILIZATION),
            cache_bytes=1 if "fp8" in str(given.get("kv-cache-dtype", "")) else 2,
            batched_tokens=_whole(given, "max-num-batched-tokens", BATCHED_TOKENS),
            adapters=_whole(given, "max-loras", adapters) if adapters else 0,
            adapter_rank=_whole(given, "max-lora-rank", rank),
            graphs=not given.get("enforce-eager"),
            gpus=_whole(given, "tensor-parallel-size", gpus),
            nodes=_whole(given, "pipeline-parallel-size", nodes) if nodes > 1 else 1,
        )


@dataclass(frozen=True)
class ServingMemory:
    """Memory of one GPU, in GiB. The components sum to ``total``."""

    weights: float
    adapters: float
    """Slots for adapters, of the largest rank that is served."""
    cache: float
    """Keys and values of one request of the asked length, which vLLM wants to hold at least."""
    activations: float
    """Activations of a batch of prompts, and logits for each request."""
    graphs: float
    context: float
    cache_of_token: float
    """GiB of keys and values of one token."""
    context_length: int
    """The model's context length in tokens."""
    exact: bool
    """False if weights or cache are upper bounds: see ``PLAIN``."""

    @property
    def total(self) -> float:
        """GiB that must fit into vLLM's share of the GPU."""
        return sum(self.components().values())

    def components(self) -> dict[str, float]:
        """Return the components by name."""
        return {
            name: getattr(self, name) for name in ("weights", "adapters", "cache", "activations", "graphs", "context")
        }

    def longest(self, usable: float) -> int:
        """Return the longest context that fits into ``usable`` GiB and that the model supports."""
        return min(self.context_length, self.held(usable))

    def held(self, usable: float) -> int:
        """Return the total tokens of all requests whose keys and values fit into ``usable`` GiB."""
        return max(0, int((usable - self.total + self.cache) / self.cache_of_token))


def serving(model: presets.Model, settings: Serving) -> ServingMemory:
    """Return the memory of serving a model."""
    token = _cache_values(model, settings.gpus) * settings.cache_bytes / settings.nodes / GIB
    length = settings.length or MIN_CONTEXT
    split = _split(model, settings.gpus)
    window = (
        model.window_values * split * min(length, model.sliding_window) * settings.cache_bytes / settings.nodes / GIB
    )
    return ServingMemory(
        weights=model.weights_gib / settings.gpus / settings.nodes,
        adapters=settings.adapters * _adapter(model, settings.adapter_rank) / settings.gpus / settings.nodes / GIB,
        cache=token * length + window,
        activations=_activations(model, settings) / GIB,
        graphs=GRAPHS_GIB if settings.graphs else 0,
        context=CONTEXT_GIB,
        cache_of_token=token,
        context_length=model.context_length,
        exact=_is_exact(model) and not model.quantization,
    )


def _cache_values(model: presets.Model, gpus: int) -> float:
    """Return the values that one GPU keeps for a token, without those of sliding windows."""
    if model.cache_values is not None:
        # Models without attention keep no values; a token is then not what fills the memory.
        return max(1, model.cache_values * (1 if model.latent_cache else _split(model, gpus)))
    if model.architecture.startswith(LATENT):
        return LATENT_WIDTH * model.layers
    head_dim = model.head_dim or model.hidden_size // model.heads
    return 2 * head_dim * model.kv_heads * model.layers * _split(model, gpus)


def _split(model: presets.Model, gpus: int) -> float:
    """Return the share of keys and values that one GPU keeps: at least one head."""
    return max(model.kv_heads / gpus, 1) / model.kv_heads


def _is_exact(model: presets.Model) -> bool:
    if model.cache_values is None:
        return model.architecture in PLAIN
    return not (model.window_values or model.stateful or model.latent_cache or model.experts)


def _whole(given: Mapping[str, Any], flag: str, default: int) -> int:
    """Return a flag's number; the default if it is invalid, which vLLM then reports."""
    value = str(given.get(flag, default))
    return int(value) if value.isdecimal() and int(value) > 0 else default


def _share(given: Mapping[str, Any], flag: str, default: float) -> float:
    try:
        value = float(given.get(flag, default))
    except (TypeError, ValueError):
        return default
    return value if 0 < value <= 1 else default


def _adapter(model: presets.Model, rank: int) -> float:
    try:
        return shapes.of(model).adapter_parameters(rank, ()) * ADAPTER_BYTES
    except shapes.UnknownShapes:
        # Four attention matrices and an MLP of three times the hidden size.
        return model.layers * rank * 20 * model.hidden_size * ADAPTER_BYTES


def _activations(model: presets.Model, settings: Serving) -> float:
    inner = model.intermediate_size or 4 * model.hidden_size
    prompts = settings.batched_tokens * 2 * (4 * model.hidden_size + 3 * inner / settings.gpus)
    # In 16 bits, then in float32 for sampling.
    scores = settings.sequences * (model.vocab_size or 0) * (2 + 4)
    return prompts + scores
