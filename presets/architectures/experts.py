"""Models with mixtures of experts. transformers keeps the experts of a layer in three-dimensional parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from presets.architectures import dense
from presets.architectures.config import Config
from presets.architectures.dense import Family
from presets.architectures.layers import Part, add, expert_weights, linear, plain


@dataclass(frozen=True)
class Experts:
    """Experts of a block."""

    width: str = "moe_intermediate_size"
    """Key of the width of an expert."""
    shared: str = ""
    """Key of the width, or of the number, of experts that every token uses; they are linear layers."""
    shared_gate: bool = False
    """A linear layer weighs the shared expert."""
    bias: bool = False
    router_linear: bool = False


MODELS: dict[str, tuple[Family, Experts]] = {
    "glm4_moe": (
        replace(dense.PLAIN, qkv_bias="attention_bias", qk_norm="head", qk_norm_if="use_qk_norm"),
        Experts(shared="n_shared_experts"),
    ),
    "gpt_oss": (
        replace(dense.PLAIN, qkv_bias="attention_bias", out_bias="attention_bias"),
        Experts(width="intermediate_size", bias=True),
    ),
    "granitemoe": (dense.ATTENTION_BIASED, Experts(width="intermediate_size")),
    "llama4_text": (dense.ATTENTION_BIASED, Experts(width="intermediate_size", router_linear=True)),
    "mixtral": (dense.PLAIN, Experts(width="intermediate_size")),
    "olmoe": (replace(dense.ATTENTION_BIASED, qk_norm="all"), Experts(width="intermediate_size")),
    "qwen2_moe": (
        replace(dense.PLAIN, qkv_bias="qkv_bias"),
        Experts(shared="shared_expert_intermediate_size", shared_gate=True),
    ),
    "qwen3_moe": (replace(dense.ATTENTION_BIASED, qk_norm="head"), Experts()),
    "deepseek_v2": (dense.PLAIN, Experts(shared="n_shared_experts")),
    "deepseek_v3": (dense.PLAIN, Experts(shared="n_shared_experts")),
}


def blocks(config: Config) -> Part:
    """Return all blocks of a model with experts."""
    family, kind = MODELS[config.model_type]
    attention: Callable[[Config, Family], Part] = (
        latent_attention if config.model_type.startswith("deepseek") else dense.attention
    )
    every = add([attention(config, family), plain(dense.norms(config, family))])
    if config.model_type == "gpt_oss":
        every += plain(config.heads)  # attention sinks
    sparse = sparse_layers(config)
    parts = [every * config.layers, experts(config, family, kind) * sparse]
    if sparse < config.layers:
        inner = config.count("intermediate_size_mlp") if config.model_type == "llama4_text" else config.inner
        parts.append(dense.mlp(config, family, inner) * (config.layers - sparse))
    return add(parts)


def sparse_layers(config: Config) -> int:
    """Return the number of blocks with experts."""
    layers = config.layers
    if config.model_type in ("deepseek_v2", "deepseek_v3", "glm4_moe"):
        return layers - min(layers, config.count("first_k_dense_replace", 0))
    if config.model_type == "llama4_text":
        step = config.count("interleave_moe_layer_step", 1)
        listed = config.listed("moe_layers") or range(step - 1, layers, step)
        return len([index for index in listed if isinstance(index, int) and index < layers])
    if config.model_type in ("qwen2_moe", "qwen3_moe", "qwen3_next"):
        step, excluded = config.count("decoder_sparse_step", 1), config.listed("mlp_only_layers")
        return len([n for n in range(layers) if n not in excluded and step and (n + 1) % step == 0])
    return layers


def experts(config: Config, family: Family, kind: Experts) -> Part:
    """Return router, experts and shared experts of a block."""
    count, hidden, width = config.count("num_local_experts"), config.hidden, config.count(kind.width)
    parts = [expert_weights(count * 3 * hidden * width)]
    if kind.router_linear:
        parts.append(linear("router", hidden, count))
    else:
        parts.append(plain(hidden * count))
    if kind.bias:
        parts.append(expert_weights(count * (2 * width + hidden)) + plain(count))
    if kind.router_linear:
        parts.append(dense.mlp(config, family, width))  # one shared expert
    elif kind.shared:
        shared = config.count(kind.shared, 0)
        inner = shared * width if kind.shared.startswith("n_") else shared
        parts.append(dense.mlp(config, family, inner) if inner else Part())
    if kind.shared_gate:
        parts.append(linear("shared_expert_gate", hidden, 1))
    return add(parts)


def latent_attention(config: Config, family: Family) -> Part:
    """Return multi-head latent attention (DeepSeek-V2 paper, section 2.1)."""
    hidden, heads = config.hidden, config.heads
    rope, nope, values = (config.count(key) for key in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    rank, query_rank = config.count("kv_lora_rank"), config.count("q_lora_rank", 0)
    bias = config.flag("attention_bias")
    parts = (
        [
            linear("q_a_proj", hidden, query_rank, bias=bias),
            plain(query_rank),
            linear("q_b_proj", query_rank, heads * (nope + rope)),
        ]
        if query_rank
        else [linear("q_proj", hidden, heads * (nope + rope))]
    )
    parts += [
        linear("kv_a_proj_with_mqa", hidden, rank + rope, bias=bias),
        plain(rank),
        linear("kv_b_proj", rank, heads * (nope + values)),
        linear(family.out, heads * values, hidden, bias=bias),
    ]
    return add(parts)
