"""What a step ran with, for its record and for the provenance of what it made."""

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
    """Versions of Python and of the libraries above that are installed; none is imported."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
