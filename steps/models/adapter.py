"""An adapter on disk: its two files, and their digest."""

from __future__ import annotations

from pathlib import Path

from steps.oci.adapter_files import ADAPTER_FILES, CONFIG, WEIGHTS
from steps.runtime import files

__all__ = ["ADAPTER_FILES", "CONFIG", "WEIGHTS", "adapter_digest"]


def adapter_digest(folder: Path) -> str:
    """Return the digest of the adapter in ``folder``: of the names and digests of its two files only.

    Raises:
        FileNotFoundError: One of the two files is missing.
    """
    return files.sha256_text("".join(f"{name} {files.sha256(folder / name)}\n" for name in ADAPTER_FILES))
