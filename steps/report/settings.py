"""Settings and result of the report step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from steps.report.argo_values import parse_failures, parse_plan, parse_status
from steps.report.report_data import Failure
from steps.runtime.options import Options


class Settings(Options):
    """Write the HTML report of a run."""

    work: Path
    """Work folder of the run."""
    plan: Annotated[dict[str, Any] | None, BeforeValidator(parse_plan)] = {}
    """Plan as JSON: each value with its origin."""
    status: Annotated[str, BeforeValidator(parse_status)] = ""
    """Status of the workflow (Argo: workflow.status)."""
    failures: Annotated[tuple[Failure, ...], BeforeValidator(parse_failures)] = ()
    """Failed nodes as JSON (Argo: workflow.failures)."""


@dataclass(frozen=True)
class Result:
    """Location of the report."""

    report_path: str
    """Path of the HTML file."""
