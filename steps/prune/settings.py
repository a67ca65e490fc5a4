"""Settings and result of the prune step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from steps.promote.settings import Candidate
from steps.runtime.options import Options


class Settings(Options):
    """Select the trials of a rung of successive halving that are trained further."""

    work: Path
    """Work folder, shared by all steps."""
    candidates: list[Candidate]
    """JSON list of mappings with ``adapter-digest``, ``base-loss``, ``adapter-loss`` and ``verdict``, as Argo
    aggregates the outputs of the rung: ``{{tasks.NAME.outputs.parameters}}``."""
    trials: list[dict[str, str]]
    """JSON list of the trials of the rung: mappings with ``candidate``, the name of its directory, and settings."""
    keep: int = Field(ge=1, le=1000)
    """Number of trials to keep."""


@dataclass(frozen=True)
class Result:
    """The trials of the next rung."""

    survivors: list[dict[str, str]]
    """The best trials, lowest loss first, as in ``trials``."""
    compared: int
    """Number of trials that were evaluated."""
