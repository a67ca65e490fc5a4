"""Quantities of Kubernetes: ``500m``, ``1.5Gi``, ``2e3`` (apimachinery: ``resource.ParseQuantity``)."""

from __future__ import annotations

import re

_QUANTITY = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_LOOSE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_UNITS = {
    "k": "k", "kb": "k", "kib": "Ki", "ki": "Ki", "m": "M", "mb": "M", "mi": "Mi", "mib": "Mi", "g": "G", "gb": "G",
    "gi": "Gi", "gib": "Gi", "t": "T", "tb": "T", "ti": "Ti", "tib": "Ti", "core": "", "cores": "", "cpu": "",
    "cpus": "", "b": "", "bytes": "",
}  # fmt: skip
"""Units that people write, and those of Kubernetes."""


def is_quantity(text: str) -> bool:
    """Return True if Kubernetes reads the text as a quantity."""
    return _QUANTITY.fullmatch(text.strip()) is not None


def suggest(text: str) -> str:
    """Return a fix for a text that is not a quantity."""
    loose = _LOOSE.fullmatch(text)
    unit = _UNITS.get(loose[2].lower()) if loose else None
    return f"use {loose[1]}{unit}" if loose and unit is not None else "use a quantity such as 500m, 4Gi or 100M"
