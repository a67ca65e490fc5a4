"""Families whose blocks differ from those of all others: Falcon, MPT, Gemma 4."""

from __future__ import annotations

from dataclasses import replace

from presets.architectures import dense
from presets.architectures.config import Config
from presets.architectures.layers import Cache, Part, add, expert_weights, linear, plain

FALCON = dense.Family(
    qkv=("query_key_value",), out="dense", mlp=("dense_h_to_4h", "dense_4h_to_h"), norm_size=2,
    qkv_bias="bias", out_bias="bias", mlp_bias="bias",
)  # fmt: skip
MPT = dense.Family(qkv=("Wqkv",), out="out_proj", mlp=("up_proj", "down_proj"))
GEMMA = replace(dense.ATTENTION_BIASED, norms=4, qk_norm="head")


def falcon(config: Config) -> Part:
    """Return Falcon's blocks."""
    hidden, head_dim = config.hidden, config.hidden // config.heads
    bias = config.flag("bias")
    width = (config.heads + 2 * config.kv_heads) * head_dim
    parts = [
        linear("query_key_value", hidden, width, bias=bias),
        linear("dense", hidden, hidden, bias=bias),
        dense.mlp(config, FALCON),
        plain(falcon_norms(config) * 2 * hidden),
    ]
    return add(parts) * config.layers


def falcon_norms(config: Config) -> int:
    """Return the norms of a block."""
    if config.flag("new_decoder_architecture"):
        return config.count("num_ln_in_parallel_attn", 2)
    return 1 if config.flag("parallel_attn", True) else 2


def mpt(config: Config) -> Part:
    """Return MPT's blocks, which have no bias."""
    if not config.flag("no_bias", True):
        raise config.unknown("MPT models with bias")
    return add([dense.attention(config, MPT), dense.mlp(config, MPT), plain(2 * config.hidden)]) * config.layers


def gemma4(config: Config) -> Part:
    """Return Gemma 4's blocks: two kinds of attention, shared keys, embeddings of each layer, experts."""
    hidden, layers = config.hidden, config.layers
    first_shared = layers - config.count("num_kv_shared_layers", 0)
    parts = []
    for index, is_global in enumerate(gemma4_global_layers(config)):
        shares = 0 <= first_shared <= index
        wide = config.flag("use_double_wide_mlp") and index >= first_shared > 0
        parts.append(_gemma4_attention(config, is_global=is_global, shares=shares))
        parts.append(dense.mlp(config, GEMMA, config.inner * (2 if wide else 1)))
    parts.append(plain(layers * 4 * hidden))
    if per_layer := config.count("hidden_size_per_layer_input", 0):
        gate = linear("per_layer_input_gate", hidden, per_layer)
        projection = linear("per_layer_projection", per_layer, hidden)
        parts.append((gate + projection + plain(hidden)) * layers)
        parts.append(linear("per_layer_model_projection", hidden, layers * per_layer))
        parts.append(plain(per_layer + config.count("vocab_size_per_layer_input") * layers * per_layer))
    if config.flag("enable_moe_block"):
        count, width = config.count("num_local_experts"), config.count("moe_intermediate_size")
        moe = [linear("proj", hidden, count), expert_weights(count * 3 * hidden * width), plain(4 * hidden + count)]
        parts.append(add(moe) * layers)
    return add(parts)


def gemma4_global_layers(config: Config) -> list[bool]:
    """Return for each block if it attends to all tokens; the last one always does."""
    types = config.listed("layer_types")
    if len(types) != config.layers:
        types = ["sliding_attention" if (n + 1) % 6 else "full_attention" for n in range(config.layers)]
    return [kind == "full_attention" for kind in types[:-1]] + [True]


def gemma4_cache(config: Config) -> Cache:
    """Return what a server keeps per token; blocks that share keys keep none."""
    own = gemma4_global_layers(config)[: config.layers - config.count("num_kv_shared_layers", 0)]
    head_dim, kv_heads = _gemma4_heads(config, is_global=True)
    return Cache(
        values=sum(own) * 2 * head_dim * kv_heads,
        window_values=(len(own) - sum(own)) * 2 * config.head_dim * config.kv_heads,
        window=config.count("sliding_window", 512),
    )


def _gemma4_heads(config: Config, *, is_global: bool) -> tuple[int, int]:
    if not is_global:
        return config.head_dim, config.kv_heads
    key = "num_global_key_value_heads" if config.flag("attention_k_eq_v") else "num_key_value_heads"
    return config.count("global_head_dim", 512), config.count(key, config.kv_heads)


def _gemma4_attention(config: Config, *, is_global: bool, shares: bool) -> Part:
    head_dim, kv_heads = _gemma4_heads(config, is_global=is_global)
    bias, hidden = config.flag("attention_bias"), config.hidden
    queries, keys = config.heads * head_dim, kv_heads * head_dim
    query, output = linear("q_proj", hidden, queries, bias=bias), linear("o_proj", queries, hidden, bias=bias)
    parts = [query, output, plain(head_dim)]
    if not shares:
        parts += [linear("k_proj", hidden, keys, bias=bias), plain(head_dim)]
        if not (is_global and config.flag("attention_k_eq_v")):
            parts.append(linear("v_proj", hidden, keys, bias=bias))
    return add(parts)
