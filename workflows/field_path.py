"""Paths of fields in a document, as users write them: ``spec.templates[0].name``."""

from __future__ import annotations

from typing import Any


def join(path: str, key: Any) -> str:
    """Path of a field of a map, or of an item of a list when ``key`` is an integer."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else str(key)
