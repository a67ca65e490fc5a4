"""A ``config.json`` with the defaults of transformers for absent keys, and one name for keys that mean the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

DEFAULTS = Path(__file__).parent / "defaults.json"
"""Default values of transformers' configuration classes, by model type; ``tests/presets`` writes it."""
ALIASES = {
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_layers": "num_hidden_layers",
    "num_layers": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "num_heads": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "max_seq_len": "max_position_embeddings",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "ffn_hidden_size": "intermediate_size",
    "num_kv_heads": "num_key_value_heads",
    "num_experts": "num_local_experts",
    "n_routed_experts": "num_local_experts",
    "attn_layer_indices": "attention_layers",
}
MAX_LAYERS = 10_000
MAX_FACTOR = 1000


class UnknownArchitecture(ValueError):
    """The layers of this model type, or of this variant of it, are unknown."""


class ImpossibleSizes(UnknownArchitecture):
    """A layer would have no values."""


class Config:
    """Values of the text model in a ``config.json``."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        whole = dict(content)
        text = next((whole[key] for key in ("text_config", "llm_config") if isinstance(whole.get(key), dict)), None)
        if text is not None:
            shared = {key: whole[key] for key in ("tie_word_embeddings",) if key in whole}
            whole = {"model_type": whole.get("model_type"), **shared, **text}
        self.model_type = str(whole.get("model_type") or "")
        self.multimodal = text is not None
        self._values = {**_defaults().get(self.model_type, {}), **_renamed(whole)}

    def unknown(self, variant: str) -> UnknownArchitecture:
        """Return the error for a variant of a known model type."""
        return UnknownArchitecture(f"argotune does not know the layers of {variant}")

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value; the default if it is null or absent."""
        value = self._values.get(key)
        return default if value is None else value

    def count(self, key: str, default: int | None = None) -> int:
        """Return a number of things.

        Raises:
            UnknownArchitecture: it is absent without a default, or not a whole number.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
            raise UnknownArchitecture(f"config.json: {key} is {value!r}, not a whole number")
        return value

    def factor(self, key: str, default: float) -> float:
        """Return what a number is multiplied by.

        Raises:
            UnknownArchitecture: it is not a number, or larger than in any model.
        """
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_FACTOR:
            raise UnknownArchitecture(f"config.json: {key} is {value!r}, not a factor")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """Return True if a value is true."""
        return bool(self.get(key, default))

    def listed(self, key: str) -> list[Any]:
        """Return a list; empty if it is absent."""
        value = self.get(key, [])
        return value if isinstance(value, list) else []

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.count("hidden_size")

    @property
    def layers(self) -> int:
        """Number of transformer blocks.

        Raises:
            UnknownArchitecture: as ``count``, or there are more than any model has.
        """
        layers = self.count("num_hidden_layers")
        if not 0 < layers <= MAX_LAYERS:
            raise UnknownArchitecture(f"config.json: num_hidden_layers is {layers}")
        return layers

    @property
    def heads(self) -> int:
        """Number of query heads.

        Raises:
            UnknownArchitecture: as ``count``, or there are none.
        """
        heads = self.count("num_attention_heads")
        if heads == 0:
            raise UnknownArchitecture("config.json: num_attention_heads is 0")
        return heads

    @property
    def kv_heads(self) -> int:
        """Number of key heads; that of the query heads if the configuration does not set it."""
        if self.model_type == "falcon" and not self.flag("new_decoder_architecture"):
            return 1 if self.flag("multi_query", True) else self.heads
        return self.count("num_key_value_heads", self.heads)

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.count("head_dim", self.hidden // self.heads)

    @property
    def inner(self) -> int:
        """Width of the MLP; four times the hidden size if the configuration does not set it."""
        return self.count("intermediate_size", 4 * self.hidden)

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the embedding."""
        return self.count("vocab_size")

    @property
    def tied(self) -> bool:
        """True if input and output embeddings are one matrix."""
        return self.flag("tie_word_embeddings", True)

    @property
    def context(self) -> int:
        """Longest context that the model was made for."""
        return self.count("max_position_embeddings", 2048)


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(DEFAULTS.read_bytes())
    return content


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by the name that most models use; where a configuration has both, that one wins.

    A null stays: it overrides transformers' default.
    """
    renamed = {key: value for key, value in values.items() if key not in ALIASES}
    for alias, key in ALIASES.items():
        if values.get(alias) is not None and renamed.get(key) is None:
            renamed[key] = values[alias]
    return renamed
