"""An adapter on disk: the two files that PEFT writes and KAITO's inference reads."""

from __future__ import annotations

from pathlib import Path

from steps.runtime import files

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG, WEIGHTS)


def adapter_digest(folder: Path) -> str:
    """Return the digest of the adapter in ``folder``: of the names and digests of its two files only.

    Raises:
        FileNotFoundError: One of the two files is missing.
    """
    return files.sha256_text("".join(f"{name} {files.sha256(folder / name)}\n" for name in ADAPTER_FILES))
