"""Facts about models and GPU instance types, as YAML in this directory, and their typed loader."""

from presets.facts import Linear, Model, Price, Prices, Sku, VllmArchitectures, VllmFlag, VllmFlags, Wheel
from presets.loader import (
    UnknownPreset,
    UnknownSku,
    find_sku,
    known_models,
    model,
    models,
    prices,
    sku,
    skus,
    vllm_architectures,
    vllm_flags,
)

__all__ = [
    "Linear",
    "Model",
    "Price",
    "Prices",
    "Sku",
    "UnknownPreset",
    "UnknownSku",
    "VllmArchitectures",
    "VllmFlag",
    "VllmFlags",
    "Wheel",
    "find_sku",
    "known_models",
    "model",
    "models",
    "prices",
    "sku",
    "skus",
    "vllm_architectures",
    "vllm_flags",
]
