"""The training section of the report: charts of loss, learning rate, gradient norm, speed and memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from steps.report.report_charts import Chart, Point, Series, line_chart, smooth
from steps.report.report_data import MEMORY, ReportData

MIN_SMOOTHED_POINTS = 30
SMALL_CHARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Learning rate", {"learning_rate": "learning rate"}),
    ("Gradient norm", {"grad_norm": "gradient norm"}),
    ("Tokens per second", {"tokens_per_second": "tokens per second"}),
    ("Memory, GiB", dict(zip(MEMORY, ("in use", "reserved"), strict=True))),
)
"""Titles, and the lines of each chart: keys of the log and their names."""
NOISY = {"grad_norm", "tokens_per_second"}
"""Keys that are smoothed."""


@dataclass(frozen=True)
class TrainingSection:
    """The charts; or, if only one step was logged, its values."""

    loss: Chart | None = None
    small: list[Chart] = field(default_factory=list)
    values: list[tuple[str, float]] = field(default_factory=list)


def training_section(data: ReportData) -> TrainingSection:
    """Return the charts of the run; those without points are omitted."""
    loss, held_out = _points(data, "loss"), _points(data, "eval_loss")
    if max(len(loss), len(held_out)) < 2:
        return TrainingSection(values=_single_step(data) if loss or held_out else [])
    series = [
        *_smoothed("training loss" if len(loss) < MIN_SMOOTHED_POINTS else "training loss, smoothed", loss),
        Series("held-out loss", held_out, "other"),
    ]
    description = _describe("Loss", loss or held_out)
    small = [chart for title, lines in SMALL_CHARTS if (chart := _small_chart(data, title, lines))]
    return TrainingSection(line_chart("Loss by step", description, series, x_label="step", y_label="loss"), small)


def _single_step(data: ReportData) -> list[tuple[str, float]]:
    logged = {key: value for point in data.curve for key, value in point.items()}
    names = {"loss": "Training loss", "eval_loss": "Held-out loss"}
    names |= {key: title for title, lines in SMALL_CHARTS for key in list(lines)[:1]}
    return [(name, logged[key]) for key, name in names.items() if key in logged]


def _small_chart(data: ReportData, title: str, lines: dict[str, str]) -> Chart | None:
    drawn = {name: points for key, name in lines.items() if (points := _points(data, key))}
    if NOISY & set(lines):
        series = [line for points in drawn.values() for line in _smoothed("smoothed", points)]
    else:
        series = [Series(*line, kind) for line, kind in zip(drawn.items(), ("main", "other"), strict=False)]
    description = " ".join(_describe(name.capitalize(), points) for name, points in drawn.items())
    return line_chart(title, description, series, x_label="step", y_label="", height=120, from_zero=True)


def _smoothed(name: str, points: list[Point]) -> list[Series]:
    """Return the line; a long one as a smooth line above the values of each step."""
    if len(points) < MIN_SMOOTHED_POINTS:
        return [Series(name, points)]
    return [Series("each step", points, "faint"), Series(name, smooth(points, len(points) // 10))]


def _points(data: ReportData, key: str) -> list[Point]:
    """Return the points of the curve that can be drawn."""
    return [(p["step"], p[key]) for p in data.curve if key in p and (p[key] == 0 or 1e-30 < abs(p[key]) < 1e30)]


def _describe(name: str, points: list[Point]) -> str:
    if not points:
        return ""
    (first, start), (last, end) = points[0], points[-1]
    low = min(y for _, y in points)
    return (
        f"{name} goes from {start:.4g} at step {first:.6g} to {end:.4g} at step {last:.6g}; the lowest is {low:.4g}. "
        f"{len(points)} points."
    )
