"""How runs are shown: KAITO's columns, the steps of one run, or data for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from workflows.cluster.status import NONE, RunStatus
from workflows.cluster.steps import Step

Row = tuple[str, ...]

COLUMNS = ("NAME", "INSTANCE", "RESOURCEREADY", "INFERENCEREADY", "WORKSPACEREADY", "AGE")
WIDE = ("JOBSTARTED", "PHASE", "PROGRESS", "STEP", "DURATION", "WORKSPACE", "MESSAGE")
STEPS = ("STEP", "STATE", "DURATION", "MAX_ATTEMPTS", "PROGRESS", "MESSAGE")
FORMATS = ("wide", "json", "yaml", "name")


def now() -> datetime:
    """The present."""
    return datetime.now(UTC)


def header(*, wide: bool = False, everywhere: bool = False) -> Row:
    """Names of the columns."""
    return (*(("NAMESPACE",) if everywhere else ()), *COLUMNS, *(WIDE if wide else ()))


def row(run: RunStatus, moment: datetime, *, wide: bool = False, everywhere: bool = False) -> Row:
    """A run in KAITO's columns; wide: with what tells where it is."""
    cells = (run.name, run.instance, run.resource_ready, run.inference_ready, run.workspace_ready)
    aged = _between(run.created, moment)
    more: Row = ()
    if wide:
        now_at = ",".join(step.key for step in run.steps if step.phase == "Running") or NONE
        more = (
            run.job_started,
            run.phase,
            run.progress or NONE,
            now_at,
            _between(run.started, run.finished or moment),
            run.workspace or NONE,
            _line(run.verdict or run.message) or NONE,
        )
    return (*((run.namespace,) if everywhere else ()), *cells, aged, *more)


def step_rows(run: RunStatus, moment: datetime) -> list[Row]:
    """The steps of a run, with what each has come to."""
    rows: list[Row] = []
    for step in run.steps:
        progress = f"{step.progress[0]}/{step.progress[1]}" if step.progress else ""
        took = _between(step.started, step.finished or moment) if step.attempts or step.type == "Suspend" else ""
        tries = str(len(step.attempts)) if len(step.attempts) > 1 else ""
        rows.append((step.key, step.phase or NONE, took, tries, progress, _line(step.message)))
    return rows


def lines(rows: Sequence[Row], widths: Sequence[int] | None = None) -> list[str]:
    """Rows in columns of equal width, or of the widths given."""
    widths = widths or widths_of(rows)
    return ["   ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def widths_of(rows: Sequence[Row]) -> list[int]:
    """The widths that the columns of these rows need."""
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def formatted(runs: Iterable[RunStatus], form: str, *, alone: bool = False) -> str:
    """Runs as data: ``json``, ``yaml`` or ``name``; one that was asked for by name stands ``alone``, in no list."""
    runs = list(runs)
    if form == "name":
        return "".join(f"{run.name}\n" for run in runs)
    content: Any = as_data(runs[0]) if alone else [as_data(run) for run in runs]
    if form == "json":
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    import yaml

    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def as_data(run: RunStatus) -> dict[str, Any]:
    """What a program may want to know of a run; names as in the columns."""
    return {
        "name": run.name,
        "namespace": run.namespace,
        "workspace": run.workspace,
        "instance": run.instance,
        "resourceReady": run.resource_ready,
        "inferenceReady": run.inference_ready,
        "jobStarted": run.job_started,
        "workspaceReady": run.workspace_ready,
        "phase": run.phase,
        "progress": run.progress,
        "message": run.verdict or run.message,
        "exitCode": run.exit_code if run.done else None,
        "createdAt": _text(run.created),
        "startedAt": _text(run.started),
        "finishedAt": _text(run.finished),
        "steps": [_step_data(step) for step in run.steps],
    }


def duration(passed: timedelta) -> str:
    """As kubectl writes ages (its ``duration.HumanDuration``)."""
    seconds = max(int(passed.total_seconds()), 0)
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
        "startedAt": _text(step.started),
        "finishedAt": _text(step.finished),
        "exitCode": step.exit_code,
        "outputs": step.outputs,
        "pods": [{"name": one.pod, "phase": one.phase, "node": one.host} for one in step.attempts],
    }


def _between(start: datetime | None, end: datetime) -> str:
    return duration(end - start) if start else NONE


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _line(text: str) -> str:
    """In one line, and in no more than a screen's width."""
    short = " ".join(text.split())
    return short if len(short) <= 120 else f"{short[:117]}..."
