"""The search in the report: a table of its trials, and their loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steps.report.formatting import DASH, format_duration, format_number, format_percent
from steps.report.report_charts import Chart, Series, line_chart
from steps.report.report_data import ReportData, TrialRun

MAX_CURVES = 20
"""Curves of one chart: those of the best trials."""


@dataclass(frozen=True)
class SearchSection:
    """Table and chart of the trials."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    chart: Chart | None
    note: str = ""


def search_section(data: ReportData) -> SearchSection | None:
    """Return the trials, the best first; None without a search."""
    if not data.trials:
        return None
    trials = sorted(data.trials, key=_rank)
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    gpus, unit = (data.gpu.nodes.gpus, data.gpu.unit) if data.gpu else (0, "")
    promoted = data.value("promote", "candidate")
    head = [
        "Trial",
        *names,
        "Loss",
        "Of base",
        "Verdict",
        "Trained",
        "Time",
        *([unit[0].upper() + unit[1:]] if unit else []),
    ]
    rows = [
        [
            trial.name,
            *(trial.values.get(name, "") for name in names),
            format_number(trial.adapter_loss),
            _ratio(trial),
            _verdict(trial, promoted),
            format_percent(trial.share) if trial.device else DASH,
            format_duration(trial.seconds),
            *([f"{trial.paid_seconds / 60 * max(1, gpus):.1f}"] if unit else []),
        ]
        for trial in trials
    ]
    missing = sum(not trial.verdict for trial in trials)
    note = f"{missing} of {len(trials)} trials have no result: they failed, or the run ended before."
    return SearchSection(head, rows, _chart(trials, promoted), note if missing else "")


def _rank(trial: TrialRun) -> tuple[bool, float, float]:
    """Sort trials without a loss last, and those that were pruned after those that were trained longer."""
    loss = trial.adapter_loss
    return loss is None, -trial.share, 0.0 if loss is None else loss


def _ratio(trial: TrialRun) -> str:
    base, adapter = trial.base_loss, trial.adapter_loss
    return DASH if not base or adapter is None else format_percent(adapter / base)


def _verdict(trial: TrialRun, promoted: str) -> str:
    if not trial.verdict:
        return "no result"
    if trial.name == promoted:
        return "promoted"
    return "pruned" if trial.share < 1 else trial.verdict


def _chart(trials: Sequence[TrialRun], promoted: str) -> Chart | None:
    """Return the training losses: the promoted trial as the main line, and the best of the others."""
    shown = sorted(trials[:MAX_CURVES], key=lambda trial: trial.name == promoted)
    series = [
        Series(trial.name, points, "main" if trial.name == promoted else "other")
        for trial in shown
        if len(points := [(p["step"], p["loss"]) for p in trial.curve if "loss" in p and abs(p["loss"]) < 1e30]) > 1
    ]
    ends = [f"{line.name} ends at {line.points[-1][1]:.4g}" for line in series]
    description = f"Training loss of {len(series)} trials: {', '.join(ends)}."
    return line_chart("Training loss by trial", description, series, x_label="step", y_label="loss")
