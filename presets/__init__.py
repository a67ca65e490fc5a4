"""Facts about models and GPU instance types, as YAML in this directory, and their typed loader."""

from presets.facts import Model, Price, Prices, Sku, Wheel
from presets.loader import UnknownPreset, UnknownSku, model, models, prices, sku, skus

__all__ = [
    "Model",
    "Price",
    "Prices",
    "Sku",
    "UnknownPreset",
    "UnknownSku",
    "Wheel",
    "model",
    "models",
    "prices",
    "sku",
    "skus",
]
