"""Writes the report of a run, however it ended: one HTML file to read anywhere, and ten lines for the log."""

from __future__ import annotations

import textwrap
from pathlib import Path

from steps.report import report_data, report_page
from steps.report.report_data import ReportData
from steps.report.report_html import duration, figure
from steps.report.settings import Result, Settings
from steps.runtime import files


def report(settings: Settings) -> Result:
    """Gather what the run left behind, write ``report/report.html`` and print the summary.

    Missing or damaged parts are said in the report; only a disk that can't be written to makes this fail.
    """
    facts = report_data.read(settings.work, plan=settings.plan, status=settings.status, failures=settings.failures)
    path = settings.work / "report" / "report.html"
    files.write_text(path, report_page.page(facts))
    print("\n".join(summary(facts, path)), flush=True)
    return Result(str(path))


def summary(facts: ReportData, path: Path) -> list[str]:
    """The run in a few lines of plain text."""
    told = facts.evaluation
    failed = "; ".join(f"{one.step}: {one.message}" for one in facts.failures)
    in_service = "" if told.previous_loss is None else f", in service {figure(told.previous_loss)}"
    lines = {
        "run": f"{facts.name}: {facts.status}",
        "new": facts.of("check", "difference"),
        "verdict": told.verdict or "none",
        "loss": _change(told.base_loss, told.adapter_loss, f" on held-out rows{in_service}"),
        "perplexity": _change(told.base_perplexity, told.adapter_perplexity),
        "time": duration(facts.busy_seconds) if facts.busy_seconds is not None else "",
        "image": facts.of("package", "image_reference") or facts.of("package", "image_digest"),
        "endpoint": facts.of("rollout", "endpoint"),
        "failed": textwrap.shorten(failed, 300),
        "report": str(path),
    }
    return [f"{name:<11} {value}" for name, value in lines.items() if value]


def _change(base: float | None, adapter: float | None, where: str = "") -> str:
    return "" if base is None or adapter is None else f"{figure(base)} -> {figure(adapter)}{where}"
