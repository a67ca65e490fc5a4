"""A model's layers by its model type."""

from __future__ import annotations

from pydantic import ValidationError

from presets.architectures import dense, experts, hybrid, singular
from presets.architectures.config import Config, ImpossibleSizes, UnknownArchitecture
from presets.architectures.layers import Cache, Layers, Part, add

SINGULAR = {"falcon": singular.falcon, "mpt": singular.mpt, "gemma4_text": singular.gemma4}


def is_known(model_type: str) -> bool:
    """Return True if the layers of a model type are known."""
    return model_type in dense.FAMILIES or model_type in experts.MODELS or model_type in (*hybrid.MODELS, *SINGULAR)


def describe(config: Config) -> Layers:
    """Return the layers of a model.

    Raises:
        ImpossibleSizes: a layer would have no values.
        UnknownArchitecture: its model type or variant is unknown, or a value is missing or not a number.
    """
    try:
        return _describe(config)
    except ValidationError as error:
        sizes = ", ".join(sorted({f"{field} {item['input']!r}" for item in error.errors() for field in item["loc"]}))
        raise ImpossibleSizes(f"config.json has impossible sizes ({sizes})") from None
    except (TypeError, ZeroDivisionError, OverflowError, AttributeError) as error:
        raise UnknownArchitecture(f"config.json: invalid values ({error})") from None


def _describe(config: Config) -> Layers:
    family, blocks = _blocks(config)
    whole = add([blocks, dense.outside(config, family)])
    return Layers(
        linears=whole.linears,
        other=whole.other,
        experts=whole.experts,
        cache=_cache(config),
        norms=singular.falcon_norms(config) if config.model_type == "falcon" else family.norms,
        qk_norm=dense.has_qk_norm(config, family),
        stateful=config.model_type in hybrid.MODELS and not all(hybrid.attention_layers(config)),
        scan=hybrid.scan(config) if config.model_type in hybrid.MODELS else None,
    )


def _blocks(config: Config) -> tuple[dense.Family, Part]:
    """Return the family, which also decides what is outside of blocks, and all blocks."""
    kind = config.model_type
    if kind in SINGULAR:
        family = {"falcon": singular.FALCON, "mpt": singular.MPT}.get(kind, singular.GEMMA)
        return family, SINGULAR[kind](config)
    if kind in experts.MODELS:
        return experts.MODELS[kind][0], experts.blocks(config)
    if kind in hybrid.MODELS:
        return hybrid.family_of(config), hybrid.blocks(config)
    family = dense.family_of(config)
    return family, dense.block(config, family) * config.layers


def _cache(config: Config) -> Cache:
    if config.model_type == "gemma4_text":
        return singular.gemma4_cache(config)
    if config.get("kv_lora_rank"):
        width = config.count("kv_lora_rank") + config.count("qk_rope_head_dim")
        return Cache(values=config.layers * width, latent=True)
    layer = 2 * config.kv_heads * config.head_dim
    if config.model_type in hybrid.MODELS:
        return Cache(values=layer * sum(hybrid.attention_layers(config)))
    windowed = _window_layers(config)
    return Cache(
        values=layer * (config.layers - windowed),
        window_values=layer * windowed,
        window=config.count("sliding_window", 0) if windowed else 0,
    )


def _window_layers(config: Config) -> int:
    """Return the number of blocks that attend to the last tokens only."""
    window = config.get("sliding_window")
    if not window or config.get("use_sliding_window") is False:
        return 0
    if types := config.listed("layer_types"):
        return sum(kind == "sliding_attention" for kind in types[: config.layers])
    if config.model_type in ("gemma2", "gpt_oss"):
        return (config.layers + 1) // 2
    if config.model_type in ("gemma3_text", "cohere2", "olmo3", "exaone4"):
        # Each pattern-th block attends to all tokens.
        given = config.get("sliding_window_pattern")
        if isinstance(given, str):  # EXAONE writes LLLG
            return config.layers - config.layers // max(1, len(given))
        pattern = config.count("sliding_window_pattern", 6 if config.model_type == "gemma3_text" else 4)
        return config.layers - config.layers // max(1, pattern)
    if config.model_type in ("mistral", "phi3", "starcoder2"):
        return config.layers
    return 0
