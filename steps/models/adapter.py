"""An adapter on disk: its two files, and their digest."""

from __future__ import annotations

from pathlib import Path

from steps.runtime import files
from steps.runtime.adapter_files import ADAPTER_FILES, CONFIG, WEIGHTS
from steps.runtime.json_text import parse_json

__all__ = ["ADAPTER_FILES", "CONFIG", "WEIGHTS", "adapter_digest", "base_revision"]


def base_revision(folder: Path, model: str, revision: str = "") -> str:
    """Return the revision of ``model`` that the adapter in ``folder`` was tuned on; ``revision`` if it names none.

    A tag or a branch can move between the steps of a run.
    """
    try:
        config = parse_json((folder / CONFIG).read_text())
        is_same = model and config["base_model_name_or_path"] == model
        return str(config.get("revision") or revision) if is_same else revision
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return revision


def adapter_digest(folder: Path) -> str:
    """Return the digest of the adapter in ``folder``: of the names and digests of its two files only.

    Raises:
        FileNotFoundError: One of the two files is missing.
    """
    return files.sha256_text("".join(f"{name} {files.sha256(folder / name)}\n" for name in ADAPTER_FILES))
