"""Facts about models and GPU machine sizes, as YAML beside this file, and their typed loader."""

from presets.facts import Model, Sku, Wheel
from presets.loader import UnknownPreset, UnknownSku, model, models, sku, skus

__all__ = ["Model", "Sku", "UnknownPreset", "UnknownSku", "Wheel", "model", "models", "sku", "skus"]
