"""Settings and result of the dryrun step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from steps.tune.settings import TrainingOptions


class Settings(TrainingOptions):
    """Train a small random model with the settings of tune, before data, base model or nodes are requested."""

    work: Path
    """Work folder of this step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    gpus: int = Field(0, ge=0)
    """GPUs of the node that tune runs on; in a pod, the settings are checked for a GPU although this step has none."""


@dataclass(frozen=True)
class Result:
    """Result of the dry run."""

    summary: str
    """One-sentence summary."""
