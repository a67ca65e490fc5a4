"""Settings and result of the fetch step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.runtime.options import Options


class Settings(Options):
    """Fetch the base model into the models claim, where tune finds it."""

    work: Path
    """Work folder of this step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Location of the base model, as of tune; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""


@dataclass(frozen=True)
class Result:
    """The base model."""

    revision: str
    """Commit of the repository, or digest of the copied files; empty for a folder."""
