"""Models in which some blocks keep a state (linear attention, Mamba, convolutions) instead of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from presets.architectures import dense, experts
from presets.architectures.config import Config
from presets.architectures.experts import Experts
from presets.architectures.layers import Part, add, linear, plain
from presets.facts import Scan

QWEN = replace(dense.ATTENTION_BIASED, qk_norm="head")
QWEN_EXPERTS = Experts(shared="shared_expert_intermediate_size", shared_gate=True)
LFM = replace(dense.PLAIN, out="out_proj", qk_norm="head", mlp=("w1", "w3", "w2"))
DELTA_CHUNK = 64
"""Tokens of a chunk of transformers' gated delta rule."""
MODELS = ("granitemoehybrid", "lfm2", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next")


def attention_layers(config: Config) -> list[bool]:
    """Return for each block if it has attention."""
    types = [*config.listed("layer_types"), *config.listed("layers_block_type")]
    if len(types) == config.layers:
        return [kind in ("full_attention", "attention") for kind in types]
    if config.model_type.startswith("qwen3"):
        interval = config.count("full_attention_interval", 4)
        return [interval > 0 and (index + 1) % interval == 0 for index in range(config.layers)]
    if config.model_type == "lfm2":
        chosen = config.get("full_attn_idxs")
        return [chosen is None or index in chosen for index in range(config.layers)]
    return [False] * config.layers


def family_of(config: Config) -> dense.Family:
    """Return the family of the blocks with attention."""
    return {"granitemoehybrid": dense.ATTENTION_BIASED, "lfm2": LFM}.get(config.model_type, QWEN)


def scan(config: Config) -> Scan | None:
    """Return the blocks that compute a state in chunks; None if there are none."""
    if not _state_layers(config) or config.model_type == "lfm2":
        return None
    return _mamba_scan(config) if config.model_type == "granitemoehybrid" else _delta_scan(config)


def _mamba_scan(config: Config) -> Scan:
    values = int(config.factor("mamba_expand", 2) * config.hidden)
    return Scan(
        kind="mamba2",
        layers=_state_layers(config),
        heads=config.count("mamba_n_heads"),
        values=values,
        state=config.count("mamba_d_state"),
        convolved=values + 2 * config.count("mamba_n_groups") * config.count("mamba_d_state"),
        chunk=config.count("mamba_chunk_size", 256),
    )


def _delta_scan(config: Config) -> Scan:
    heads, state = config.count("linear_num_value_heads"), config.count("linear_key_head_dim")
    values = heads * config.count("linear_value_head_dim")
    return Scan(
        kind="delta_rule",
        layers=_state_layers(config),
        heads=heads,
        values=values,
        state=state,
        convolved=2 * config.count("linear_num_key_heads") * state + values,
        chunk=DELTA_CHUNK,
    )


def _state_layers(config: Config) -> int:
    return config.layers - sum(attention_layers(config))


def blocks(config: Config) -> Part:
    """Return all blocks of a hybrid model."""
    state, attention, shared = {
        "granitemoehybrid": (_mamba, _granite_attention, _granite_mlp),
        "lfm2": (_convolution, _lfm_attention, _lfm_mlp),
    }.get(config.model_type, (_linear_attention, _qwen_attention, _qwen_mlp))
    kinds = attention_layers(config)
    every = add([shared(config), plain(2 * config.hidden)])
    counted: list[tuple[Callable[[Config], Part], int]] = [
        (attention, sum(kinds)),
        (state, _state_layers(config)),
    ]
    return add([every * len(kinds), *(part(config) * count for part, count in counted if count)])


def _qwen_attention(config: Config) -> Part:
    return dense.attention(config, QWEN, q_factor=2)


def _linear_attention(config: Config) -> Part:
    """Gated DeltaNet."""
    block, hidden = _delta_scan(config), config.hidden
    heads, values, mixed = block.heads, block.values, block.convolved
    inputs = (
        {"in_proj_qkvz": mixed + values, "in_proj_ba": 2 * heads}
        if config.model_type == "qwen3_next"
        else {"in_proj_qkv": mixed, "in_proj_z": values, "in_proj_b": heads, "in_proj_a": heads}
    )
    parts = [linear(name, hidden, width) for name, width in inputs.items()]
    parts.append(linear("out_proj", values, hidden))
    other = mixed * config.count("linear_conv_kernel_dim") + 2 * heads + config.count("linear_value_head_dim")
    return add([*parts, plain(other)])


def _qwen_mlp(config: Config) -> Part:
    if config.model_type == "qwen3_5_text":
        return dense.mlp(config, QWEN)
    if config.model_type == "qwen3_next" and experts.sparse_layers(config) < config.layers:
        raise config.unknown("Qwen3-Next models with dense layers")
    return experts.experts(config, QWEN, QWEN_EXPERTS)


def _convolution(config: Config) -> Part:
    hidden, bias = config.hidden, config.flag("conv_bias")
    parts = [linear("in_proj", hidden, 3 * hidden, bias=bias), linear("out_proj", hidden, hidden, bias=bias)]
    return add([*parts, plain(hidden * config.count("conv_L_cache") + (hidden if bias else 0))])


def _lfm_attention(config: Config) -> Part:
    return dense.attention(config, LFM)


def _lfm_mlp(config: Config) -> Part:
    inner = config.count("block_ff_dim", config.inner)
    if config.flag("block_auto_adjust_ff_dim"):
        step = max(1, config.count("block_multiple_of"))
        inner = int(config.factor("block_ffn_dim_multiplier", 1) * int(2 * inner / 3))
        inner = step * ((inner + step - 1) // step)
    return dense.mlp(config, LFM, inner)


def _mamba(config: Config) -> Part:
    """Mamba-2."""
    block, hidden = _mamba_scan(config), config.hidden
    heads, inner, convolved = block.heads, block.values, block.convolved
    bias = config.flag("mamba_proj_bias")
    other = convolved * (config.count("mamba_d_conv") + config.flag("mamba_conv_bias")) + 3 * heads + inner
    return add(
        [
            linear("in_proj", hidden, inner + convolved + heads, bias=bias),
            linear("out_proj", inner, hidden, bias=bias),
            plain(other),
        ]
    )


def _granite_attention(config: Config) -> Part:
    return dense.attention(config, dense.ATTENTION_BIASED)


def _granite_mlp(config: Config) -> Part:
    hidden, shared = config.hidden, config.count("shared_intermediate_size")
    parts = [linear("input_linear", hidden, 2 * shared), linear("output_linear", shared, hidden)]
    if config.count("num_local_experts", 0):
        parts.append(experts.experts(config, dense.PLAIN, Experts(width="intermediate_size")))
    return add(parts)
