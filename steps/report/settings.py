"""Settings and result of the report step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from steps.report.argo_values import parse_failures, parse_hours, parse_plan, parse_status
from steps.report.report_data import Failure
from steps.runtime.options import OptionalPath, Options


class Settings(Options):
    """Write the HTML report of a run."""

    work: Path
    """Work folder of the run."""
    plan: Annotated[dict[str, Any] | Path | None, BeforeValidator(parse_plan)] = {}
    """Plan as JSON, each value with its origin; or the absolute path of a file with it."""
    status: Annotated[str, BeforeValidator(parse_status)] = ""
    """Status of the workflow (Argo: workflow.status)."""
    failures: Annotated[tuple[Failure, ...], BeforeValidator(parse_failures)] = ()
    """Failed nodes as JSON (Argo: workflow.failures)."""
    budget_hours: Annotated[float, BeforeValidator(parse_hours)] = 0
    """Limit of the GPU time in hours; 0: none."""
    gpu_nodes: dict[str, Any] = {}
    """Nodes that the run pays for as JSON: ``gpus``, ``usdPerHour``, ``created`` (by the run), ``shares`` of pods."""
    trials: list[dict[str, str]] = []
    """Trials of a search as JSON: mappings with ``candidate``, the name of its directory, and settings."""
    artifact: OptionalPath = None
    """Path of a copy that Argo uploads; not written if Argo has no artifact repository."""


@dataclass(frozen=True)
class Result:
    """Location of the report, and what a list of runs shows: an empty text for what the run does not have."""

    report_path: str
    """Path of the HTML file."""
    verdict: str
    """Verdict of the gate: pass or fail."""
    base_loss: str
    """Loss of the base model on the held-out rows."""
    adapter_loss: str
    """Loss of the adapter on the same rows."""
    image: str
    """Reference of the pushed image, or its digest."""
    endpoint: str
    """Address of the served model."""
    cause: str
    """Why the run failed, or why the gate rejected the adapter."""
