"""ReportData about models and GPU machine sizes, as YAML beside this file, and their typed loader."""

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
