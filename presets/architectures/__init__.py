"""Layers and parameters of a model, computed from its ``config.json`` alone: no weights, torch or network."""

from presets.architectures.config import Config, ImpossibleSizes, UnknownArchitecture
from presets.architectures.describe import describe, is_known
from presets.architectures.layers import EXPERT_LAYERS, Cache, Layers

__all__ = [
    "EXPERT_LAYERS",
    "Cache",
    "Config",
    "ImpossibleSizes",
    "Layers",
    "UnknownArchitecture",
    "describe",
    "is_known",
]
