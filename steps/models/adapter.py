"""What an adapter is on disk: the two files that PEFT writes and KAITO's inference reads."""

from __future__ import annotations

from pathlib import Path

from steps.runtime import files

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (CONFIG, WEIGHTS)


def adapter_digest(folder: Path) -> str:
    """Digest of the adapter in ``folder``: of its two files' names and digests, so of nothing else beside them.

    Raises:
        FileNotFoundError: when one of the two is not there.
    """
    return files.sha256_text("".join(f"{name} {files.sha256(folder / name)}\n" for name in ADAPTER_FILES))
