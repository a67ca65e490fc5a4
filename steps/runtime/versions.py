"""Versions of libraries, for the record of a step and the provenance of its output."""

from __future__ import annotations

import importlib.metadata
import platform

LIBRARIES = (
    "argotune",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "peft",
    "pyarrow",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "vllm",
)


def installed() -> dict[str, str]:
    """Return the versions of Python and of the installed libraries, without importing them."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
