"""Settings and result of the preview step."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.runtime import entrypoint


@entrypoint.settings
class Settings:
    """Show rows of ``WORK/dataset/train.parquet`` as they are trained on."""

    work: Path
    """Work folder, with the rows of the download step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; only its tokenizer is fetched."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    max_length: int = 1024
    """Tokens of a row; longer rows are cut."""
    rows: int = 3
    """Rows to show."""
    seed: int = 42
    """Of the choice of rows."""
    training_arguments: dict[str, Any] = field(default_factory=dict)
    """Of trl's SFTConfig; what decides which tokens are learned is read."""


@dataclass(frozen=True)
class Result:
    """What the rows are like."""

    rows: int
    tokens: int
    learned_tokens: int
    longest: int
    """Tokens of the longest row, before it is cut."""
    warnings: list[str]
