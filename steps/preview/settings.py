"""Settings and result of the preview step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from steps.runtime.options import Options, Seed


class Settings(Options):
    """Show rows of ``WORK/dataset/train.parquet`` as they are trained on."""

    work: Path
    """Work folder, with the rows of the download step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; only its tokenizer is fetched."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    max_length: int = Field(1024, ge=1)
    """Tokens of a row; longer rows are cut."""
    rows: int = Field(3, ge=0)
    """Rows to show."""
    seed: Seed = 42
    """Of the choice of rows."""
    training_arguments: dict[str, Any] = {}
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
