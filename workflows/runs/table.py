"""Runs as tables (KAITO's columns, the steps of one run) and as JSON or YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from steps.report.gpu_usage import CAUSES, GpuUsage
from steps.runtime import terminal
from workflows.runs import gpu_time
from workflows.runs.status import NONE, RunStatus
from workflows.runs.step import Step

Row = tuple[str, ...]

COLUMNS = ("NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE")
WIDE = ("JOBSTARTED", "PHASE", "PROGRESS", "STEP", "DURATION", "GPU-MINUTES", "USD", "WORKSPACE", "MESSAGE")
GPU_TIME = ("CAUSE", "MINUTES", "SHARE", "USD")
STEPS = ("STEP", "STATE", "DURATION", "ATTEMPTS", "PROGRESS", "MESSAGE")
FORMATS = ("wide", "json", "yaml", "name")


def now() -> datetime:
    """Return the current time."""
    return datetime.now(UTC)


def header(*, wide: bool = False, all_namespaces: bool = False, where: bool = False) -> Row:
    """Return the names of the columns; ``where`` adds whether a run is local."""
    name, *others = COLUMNS
    first = (*(("NAMESPACE",) if all_namespaces else ()), name, *(("WHERE",) if where else ()))
    return (*first, *others, *(WIDE if wide else ()))


def row(
    run: RunStatus, moment: datetime, *, wide: bool = False, all_namespaces: bool = False, where: bool = False
) -> Row:
    """Return a run in KAITO's columns; ``wide`` adds phase, progress, times and message."""
    cells = (run.instance, run.resource_ready, run.inference_ready, run.workspace_ready)
    age = _between(run.created, moment)
    more: Row = ()
    if wide:
        running = ",".join(step.key for step in run.steps if step.phase == "Running") or NONE
        more = (
            run.job_started,
            run.phase,
            f"{run.percent}%",
            running,
            _between(run.started, run.finished or moment),
            *_gpu_cells(run, moment),
            run.workspace or NONE,
            _single_line(run.verdict or run.message) or NONE,
        )
    first = (*((run.namespace,) if all_namespaces else ()), run.name, *((run.where,) if where else ()))
    return (*first, *cells, age, *more)


def step_rows(run: RunStatus, moment: datetime) -> list[Row]:
    """Return the rows of a run's steps."""
    rows: list[Row] = []
    for step in run.steps:
        progress = f"{step.progress[0]}/{step.progress[1]}" if step.progress else ""
        elapsed = _between(step.started, step.finished or moment) if step.attempts or step.type == "Suspend" else ""
        attempts = str(len(step.attempts)) if len(step.attempts) > 1 else ""
        rows.append((step.key, step.phase or NONE, elapsed, attempts, progress, _single_line(step.message)))
    return rows


def gpu_rows(run: RunStatus, moment: datetime) -> list[Row]:
    """Return the rows of a run's GPU time, by cause; empty if no GPU step has started."""
    usage = gpu_time.usage(run, moment)
    if usage is None:
        return []
    causes = [*(cause for cause in CAUSES if usage.seconds.get(cause)), ""]
    return [
        (
            cause or "total",
            f"{usage.minutes(cause):.1f}",
            f"{usage.share(cause) if cause else 1:.0%}",
            _usd(usage, cause),
        )
        for cause in causes
    ]


def _gpu_cells(run: RunStatus, moment: datetime) -> Row:
    usage = gpu_time.usage(run, moment)
    # A local run uses this machine, which has no price.
    return (f"{usage.minutes():.1f}", _usd(usage)) if usage and usage.nodes.gpus else (NONE, NONE)


def _usd(usage: GpuUsage, cause: str = "") -> str:
    usd = usage.usd(cause)
    return NONE if usd is None else f"{usd:.2f}"


def lines(rows: Sequence[Row], widths: Sequence[int] | None = None) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = widths or widths_of(rows)
    rows = [tuple(map(terminal.escape, row)) for row in rows]
    return ["   ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def widths_of(rows: Sequence[Row]) -> list[int]:
    """Return the width of each column of the rows."""
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def format_runs(runs: Iterable[RunStatus], form: str, *, single: bool = False) -> str:
    """Return runs as ``json``, ``yaml`` or ``name``; ``single``: one object instead of a list."""
    runs = list(runs)
    if form == "name":
        return "".join(f"{run.name}\n" for run in runs)
    content: Any = as_data(runs[0]) if single else [as_data(run) for run in runs]
    if form == "json":
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def as_data(run: RunStatus) -> dict[str, Any]:
    """Return a run as plain data; keys are named as the columns."""
    return {
        "name": run.name,
        "where": run.where,
        "namespace": run.namespace,
        "workspace": run.workspace,
        "instance": run.instance,
        "resourceReady": run.resource_ready,
        "inferenceReady": run.inference_ready,
        "jobStarted": run.job_started,
        "workspaceReady": run.workspace_ready,
        "phase": run.phase,
        "progress": run.progress,
        "percent": run.percent,
        "message": run.verdict or run.message,
        "exitCode": run.exit_code if run.is_ended else None,
        "createdAt": _format_time(run.created),
        "startedAt": _format_time(run.started),
        "finishedAt": _format_time(run.finished),
        "gpu": usage.as_dict() if (usage := gpu_time.usage(run, now())) else None,
        "performance": {"metrics": run.benchmark.metrics} if run.benchmark else None,
        "steps": [_step_data(step) for step in run.steps],
    }


def format_duration(elapsed: timedelta) -> str:
    """Return a duration as kubectl formats ages (its ``duration.HumanDuration``)."""
    seconds = max(int(elapsed.total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "name": step.key,
        "phase": step.phase,
        "message": step.message,
        "startedAt": _format_time(step.started),
        "finishedAt": _format_time(step.finished),
        "exitCode": step.exit_code,
        "outputs": step.outputs,
        "pods": [{"name": pod.pod, "phase": pod.phase, "node": pod.host} for pod in step.attempts],
    }


def _between(start: datetime | None, end: datetime) -> str:
    return format_duration(end - start) if start else NONE


def _format_time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _single_line(text: str) -> str:
    """Return text on one line, truncated to 120 characters."""
    short = " ".join(text.split())
    return short if len(short) <= 120 else f"{short[:117]}..."
