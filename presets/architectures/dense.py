"""Blocks of attention and MLP, as most models have them; the differences between families are in ``FAMILIES``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from presets.architectures.config import Config
from presets.architectures.layers import Part, add, linear, plain

Flag = bool | str
"""A fixed value, or the key of the configuration with it."""


@dataclass(frozen=True)
class Family:
    """Layers of a block. Sources are the modeling files of transformers."""

    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """One name: queries, keys and values are one layer."""
    out: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """The last one maps back to the hidden size."""
    fused_gate: bool = False
    """The first layer of the MLP computes gate and values."""
    qkv_bias: Flag = False
    out_bias: Flag = False
    mlp_bias: Flag = False
    norms: int = 2
    """Norms of a block, each as wide as the hidden size."""
    norm_size: int = 1
    """Parameters of a norm per value: 2 with bias, 0 without any."""
    qk_norm: str = ""
    """``head``: norms of one head; ``heads``: of all heads, each with its own values; ``all``: the same size."""
    qk_norm_if: Flag = True
    qk_norm_size: int = 1
    head_bias: bool = False
    positions: int | None = None
    """Learned positions in addition to the context length; None: there are none."""
    embedding_norm: bool = False
    block_values: int = 0
    """Single parameters of a block, such as those of an activation function."""


PLAIN = Family()
BIASED = Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")
ATTENTION_BIASED = replace(BIASED, mlp_bias=False)
GLM = replace(PLAIN, mlp=("gate_up_proj", "down_proj"), fused_gate=True, qkv_bias="attention_bias")
GPT_NEOX = Family(
    qkv=("query_key_value",), out="dense", mlp=("dense_h_to_4h", "dense_4h_to_h"), norm_size=2,
    qkv_bias=True, out_bias=True, mlp_bias=True,
)  # fmt: skip
COHERE = replace(ATTENTION_BIASED, norms=1)
ERNIE = replace(PLAIN, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias")
GPTJ = Family(out="out_proj", mlp=("fc_in", "fc_out"), mlp_bias=True, norms=1, norm_size=2, head_bias=True)
FAMILIES: dict[str, Family] = {
    "apertus": replace(ATTENTION_BIASED, mlp=("up_proj", "down_proj"), qk_norm="head", block_values=2),
    "arcee": replace(BIASED, mlp=("up_proj", "down_proj")),
    "bloom": replace(GPT_NEOX, embedding_norm=True),
    "codegen": replace(GPTJ, qkv=("qkv_proj",)),
    "cohere": replace(COHERE, qk_norm="heads", qk_norm_if="use_qk_norm"),
    "cohere2": COHERE,
    "ernie4_5": ERNIE,
    "exaone4": replace(PLAIN, qk_norm="head"),
    "gemma": ATTENTION_BIASED,
    "gemma2": replace(ATTENTION_BIASED, norms=4),
    "gemma3_text": replace(ATTENTION_BIASED, norms=4, qk_norm="head"),
    "glm": GLM,
    "glm4": replace(GLM, norms=4),
    "gpt_neox": replace(GPT_NEOX, qkv_bias="attention_bias", out_bias="attention_bias"),
    "gptj": GPTJ,
    "granite": BIASED,
    "helium": replace(PLAIN, qkv_bias="attention_bias", mlp_bias="mlp_bias"),
    "hunyuan_v1_dense": replace(ATTENTION_BIASED, qk_norm="head"),
    "llama": BIASED,
    "ministral": PLAIN,
    "ministral3": PLAIN,
    "mistral": PLAIN,
    "nemotron": replace(BIASED, mlp=("up_proj", "down_proj"), norm_size=2),
    "olmo": replace(ATTENTION_BIASED, norm_size=0),
    "olmo2": replace(ATTENTION_BIASED, qk_norm="all"),
    "olmo3": replace(ATTENTION_BIASED, qk_norm="all"),
    "opt": Family(
        out="out_proj", mlp=("fc1", "fc2"), norm_size=2, positions=2,
        qkv_bias="enable_bias", out_bias="enable_bias", mlp_bias="enable_bias",
    ),
    "persimmon": replace(GPT_NEOX, qk_norm="head", qk_norm_if="qk_layernorm", qk_norm_size=2),
    "phi": Family(
        out="dense", mlp=("fc1", "fc2"), qkv_bias=True, out_bias=True, mlp_bias=True, norms=1, norm_size=2,
        qk_norm="head", qk_norm_if="qk_layernorm", qk_norm_size=2, head_bias=True,
    ),
    "phi3": Family(qkv=("qkv_proj",), mlp=("gate_up_proj", "down_proj"), fused_gate=True),
    "qwen2": replace(PLAIN, qkv_bias=True),
    "qwen3": replace(ATTENTION_BIASED, qk_norm="head"),
    "seed_oss": replace(BIASED, out_bias="attention_out_bias"),
    "smollm3": BIASED,
    "stablelm": Family(
        qkv_bias="use_qkv_bias", norm_size=2, qk_norm="heads", qk_norm_if="qk_layernorm"
    ),
    "starcoder2": Family(
        mlp=("c_fc", "c_proj"), norm_size=2, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"
    ),
}  # fmt: skip


def family_of(config: Config) -> Family:
    """Return the family of a model type, with what a single configuration changes.

    Raises:
        UnknownArchitecture: the family is unknown, or has no such variant.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise config.unknown(f"model type {config.model_type!r}")
    if config.model_type == "stablelm" and config.flag("use_parallel_residual"):
        return replace(family, norms=1)
    if config.model_type == "opt" and config.get("word_embed_proj_dim", config.hidden) != config.hidden:
        raise config.unknown("OPT models whose embedding has another width")
    return family


def block(config: Config, family: Family) -> Part:
    """Return a block of attention and MLP."""
    return add([attention(config, family), mlp(config, family), plain(norms(config, family))])


def attention(config: Config, family: Family, *, out_inputs: int = 0, q_factor: int = 1) -> Part:
    """Return the attention of a block.

    Args:
        config: The model's configuration.
        family: Its names and biases.
        out_inputs: Width of the output layer's input, if it is not that of the queries.
        q_factor: 2 if the query layer also computes a gate.
    """
    queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
    bias = value(config, family.qkv_bias)
    if len(family.qkv) == 1:
        parts = [linear(family.qkv[0], config.hidden, queries + 2 * keys, bias=bias)]
    else:
        widths = (q_factor * queries, keys, keys)
        parts = [linear(name, config.hidden, width, bias=bias) for name, width in zip(family.qkv, widths, strict=True)]
    parts.append(linear(family.out, out_inputs or queries, config.hidden, bias=value(config, family.out_bias)))
    parts.append(plain(_qk_norms(config, family)))
    return add(parts)


def mlp(config: Config, family: Family, inner: int | None = None) -> Part:
    """Return the MLP of a block; ``inner`` overrides its width."""
    inner = config.inner if inner is None else inner
    bias = value(config, family.mlp_bias)
    *ups, down = family.mlp
    width = 2 * inner if family.fused_gate else inner
    parts = [linear(name, config.hidden, width, bias=bias) for name in ups]
    return add([*parts, linear(down, inner, config.hidden, bias=bias)])


def norms(config: Config, family: Family) -> int:
    """Return the parameters of a block's norms, and other single values."""
    return family.norms * family.norm_size * config.hidden + family.block_values


def outside(config: Config, family: Family) -> Part:
    """Return what is not in a block: embeddings, output head, final norm."""
    embedding = config.vocabulary * config.hidden
    total = embedding if config.tied else 2 * embedding
    total += family.norm_size * config.hidden  # final norm
    total += config.vocabulary if family.head_bias else 0
    total += 2 * config.hidden if family.embedding_norm else 0
    if family.positions is not None:
        total += (config.context + family.positions) * config.hidden
    return plain(total)


def value(config: Config, flag: Flag) -> bool:
    """Return a fixed value, or that of the configuration."""
    return config.flag(flag) if isinstance(flag, str) else flag


def has_qk_norm(config: Config, family: Family) -> bool:
    """Return True if attention normalizes queries and keys."""
    return bool(family.qk_norm) and value(config, family.qk_norm_if)


def _qk_norms(config: Config, family: Family) -> int:
    if not has_qk_norm(config, family):
        return 0
    size = 2 * config.head_dim if family.qk_norm == "head" else (config.heads + config.kv_heads) * config.head_dim
    return size * family.qk_norm_size
