"""Settings and result of the report step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.runtime.options import Options


class Settings(Options):
    """Write the HTML report of a run."""

    work: Path
    """Work folder of the run."""
    plan: str = ""
    """Plan as JSON: each value with its origin."""
    status: str = ""
    """Status of the workflow (Argo: workflow.status)."""
    failures: str = ""
    """Failed nodes as JSON (Argo: workflow.failures)."""


@dataclass(frozen=True)
class Result:
    """Location of the report."""

    report_path: str
    """Path of the HTML file."""
