"""Settings and result of the report step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.runtime import entrypoint


@entrypoint.settings
class Settings:
    """Write the report of a run."""

    work: Path
    """Work folder of the run."""
    plan: str = ""
    """The plan as JSON: each value with its origin."""
    status: str = ""
    """How the workflow ended (Argo: workflow.status)."""
    failures: str = ""
    """What failed, as JSON (Argo: workflow.failures)."""


@dataclass(frozen=True)
class Result:
    """Where the report is."""

    report_path: str
