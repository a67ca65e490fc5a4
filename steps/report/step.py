"""Write the report of a run, whatever its outcome: HTML, JSON, and a summary of some lines in the log."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

from steps.report import argo_template, report_page, report_reader
from steps.report.formatting import format_duration, format_number
from steps.report.report_data import ReportData
from steps.report.settings import Result, Settings
from steps.runtime import files


def report(settings: Settings) -> Result:
    """Read what the run left behind, write ``report/report.html`` and ``report.json``, and print the summary.

    The report names missing and damaged files; the step fails only if it cannot write the report.
    """
    _keep_plan(settings)
    data = report_reader.read_run(settings)
    path = write_files(settings, data)
    if settings.artifact and argo_template.has_artifact_repository():
        files.write_text(settings.artifact, path.read_text())
    print("\n".join(summary_lines(data, path)), flush=True)
    return _result(data, path)


def rewrite(work: Path) -> Path | None:
    """Write the report of an ended run again; return the path of the HTML, or None if there was no report.

    Raises:
        OSError: it cannot be written.
    """
    try:
        record = json.loads((work / "results" / "report.json").read_text())["settings"]
        plan = {"plan": _plan_file(work)} if isinstance(record.get("plan"), str) else {}
        settings = Settings(**record | plan)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if isinstance(settings.plan, Path) and not settings.plan.is_file():
        return None
    return write_files(settings, report_reader.read_run(settings))


def _keep_plan(settings: Settings) -> None:
    """Copy the plan, whose file is deleted with the pod, for ``rewrite``."""
    if isinstance(settings.plan, Path):
        with suppress(OSError):
            files.write_text(_plan_file(settings.work), settings.plan.read_text(errors="replace"))


def _plan_file(work: Path) -> Path:
    return work / "report" / "plan.json"


def write_files(settings: Settings, data: ReportData) -> Path:
    """Write HTML and JSON; return the path of the HTML."""
    path = settings.work / "report" / "report.html"
    files.write_text(path, report_page.render_page(data))
    # Escaped, since texts of others can have what UTF-8 cannot.
    files.write_text(path.with_suffix(".json"), json.dumps(_summary(data, _result(data, path)), indent=2) + "\n")
    return path


def _result(data: ReportData, path: Path) -> Result:
    evaluation = data.evaluation
    is_rejected = evaluation.verdict == "fail"
    return Result(
        report_path=str(path),
        verdict=evaluation.verdict,
        base_loss=_format_loss(evaluation.base_loss),
        adapter_loss=_format_loss(evaluation.adapter_loss),
        image=_image(data),
        endpoint=data.value("rollout", "endpoint"),
        # A run can succeed although an attempt, or a trial of a search, failed.
        cause=(_failures(data) if data.status != "Succeeded" else "") or (evaluation.reason if is_rejected else ""),
    )


def _summary(data: ReportData, result: Result) -> dict[str, Any]:
    """Return the content of ``report.json``: the outcome of the run, and its GPU time (minutes, USD)."""
    outcome = {"name": data.name, "status": data.status, **dataclasses.asdict(result)}
    gpu = {**data.gpu.as_dict(), "budget_hours": data.budget_hours} if data.gpu else None
    performance = {"performance": {"metrics": data.benchmark.metrics}} if data.benchmark else {}
    return {**outcome, "seconds": data.busy_seconds, "gpu": gpu, **performance}


def summary_lines(data: ReportData, path: Path) -> list[str]:
    """Return the summary of a run as lines of plain text."""
    evaluation = data.evaluation
    previous = evaluation.previous_loss
    live = "" if previous is None else f", live adapter {format_number(previous)}"
    lines = {
        "run": f"{data.name}: {data.status}",
        "changes": data.value("check", "difference"),
        "search": _search(data),
        "gate": evaluation.verdict or "none",
        "loss": _format_change(evaluation.base_loss, evaluation.adapter_loss, f" on held-out rows{live}"),
        "perplexity": _format_change(evaluation.base_perplexity, evaluation.adapter_perplexity),
        "time": format_duration(data.busy_seconds) if data.busy_seconds is not None else "",
        "GPU time" if data.gpu and data.gpu.nodes.gpus else "GPU steps": str(data.gpu or ""),
        "image": _image(data),
        "endpoint": data.value("rollout", "endpoint"),
        "benchmark": str(data.benchmark or ""),
        "failed": _failures(data),
        "report": str(path),
    }
    return [f"{name:<11} {value}" for name, value in lines.items() if value]


def _search(data: ReportData) -> str:
    """Return the winner of a search; empty without a search."""
    if not data.trials:
        return ""
    name = data.value("promote", "candidate")
    winner = next((trial for trial in data.trials if trial.name == name), None)
    values = "".join(f", {key} {value}" for key, value in winner.values.items()) if winner else ""
    outcome = f"best: {name}{values}" if winner else "none promoted"
    return f"{len(data.trials)} trials, {outcome}"


def _image(data: ReportData) -> str:
    return data.value("package", "image_reference") or data.value("package", "image_digest")


def _failures(data: ReportData) -> str:
    return textwrap.shorten("; ".join(f"{failure.step}: {failure.message}" for failure in data.failures), 300)


def _format_loss(loss: float | None) -> str:
    return "" if loss is None else format_number(loss)


def _format_change(base: float | None, adapter: float | None, suffix: str = "") -> str:
    return "" if base is None or adapter is None else f"{format_number(base)} -> {format_number(adapter)}{suffix}"
