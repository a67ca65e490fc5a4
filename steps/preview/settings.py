"""Settings and result of the preview step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from steps.runtime.options import Options, Seed


class Settings(Options):
    """Preview rows of ``WORK/dataset/train.parquet`` as they are trained on."""

    work: Path
    """Work directory with the rows of the download step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id or directory of the base model; only its tokenizer is downloaded."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    max_length: int = Field(1024, ge=1)
    """Maximum tokens of a row; longer rows are truncated."""
    rows: int = Field(3, ge=0)
    """Rows to show."""
    seed: Seed = 42
    """Seed of the sample of rows."""
    objective: Literal["sft", "dpo"] = "sft"
    """Objective of the training: with dpo only the last answer of a row is learned."""
    training_arguments: dict[str, Any] = {}
    """Arguments of trl's SFTConfig, for which tokens are learned and how rows are truncated."""

    model_config_: dict[str, Any] = Field({}, alias="model_config", alias_priority=1)
    """KAITO's ModelConfig, for its chat template."""


@dataclass(frozen=True)
class Result:
    """Statistics of the rows, and warnings."""

    rows: int
    """Number of rows that have tokens to learn."""
    tokens: int
    """Tokens of these rows, after truncation."""
    learned_tokens: int
    """Tokens that count in the loss."""
    longest: int
    """Tokens of the longest row before truncation."""
    warnings: list[str]
    """Problems of the data that would harm the training."""
