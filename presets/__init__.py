"""Facts about models and GPU instance types, as YAML in this directory, and their typed loader."""

from presets.facts import Model, Price, Prices, Sku, VllmFlag, VllmFlags, Wheel
from presets.loader import UnknownPreset, UnknownSku, find_sku, model, models, prices, sku, skus, vllm_flags

__all__ = [
    "Model",
    "Price",
    "Prices",
    "Sku",
    "UnknownPreset",
    "UnknownSku",
    "VllmFlag",
    "VllmFlags",
    "Wheel",
    "find_sku",
    "model",
    "models",
    "prices",
    "sku",
    "skus",
    "vllm_flags",
]
