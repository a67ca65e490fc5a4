"""Arguments of argotune's steps that are text for people or models: a path at their start is not translated."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache

from steps.runtime.entrypoint import flag
from steps.runtime.options import FreeText, Options


def positions(words: Sequence[str]) -> set[int]:
    """Return the indices of the words that are free text, in the command line of a step of argotune."""
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    flags = _flags(module) if module.startswith("steps.") else frozenset()
    after = {idx for idx, word in enumerate(words[1:], 1) if words[idx - 1] in flags}
    return after | {idx for idx, word in enumerate(words) if word.partition("=")[0] in flags and "=" in word}


@cache
def _flags(module: str) -> frozenset[str]:
    try:
        settings: type[Options] = importlib.import_module(f"{module}.settings").Settings
    except (ImportError, AttributeError):
        return frozenset()
    fields = settings.model_fields.items()
    return frozenset(
        flag(field.alias or name) for name, field in fields if any(isinstance(m, FreeText) for m in field.metadata)
    )
