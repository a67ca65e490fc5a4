"""How the training went, for the report: curves of loss, learning rate, gradient, speed and memory."""

from __future__ import annotations

from steps.report.report_charts import Point, Series, line_chart, smooth
from steps.report.report_data import MEMORY, ReportData
from steps.report.report_html import figure, none, section, shown, table

SMOOTH_FROM = 30
SMALL_CHARTS: tuple[tuple[str, dict[str, str]], ...] = (
    ("Learning rate", {"learning_rate": "learning rate"}),
    ("Gradient norm", {"grad_norm": "gradient norm"}),
    ("Tokens a second", {"tokens_per_second": "tokens a second"}),
    ("Memory, GiB", dict(zip(MEMORY, ("in use", "reserved"), strict=True))),
)
"""Title, and the lines: keys of the log with what they are called."""
SMOOTHED = {"grad_norm", "tokens_per_second"}
"""What jumps from step to step."""


def training(facts: ReportData) -> str:
    """The section with the curves; empty figures are left out."""
    loss, held_out = _points(facts, "loss"), _points(facts, "eval_loss")
    if not loss and not held_out:
        return section("Training", none("There is no loss curve: training logged nothing."))
    if max(len(loss), len(held_out)) < 2:
        return section("Training", _only_step(facts))
    series = [
        *_smoothed("train loss" if len(loss) < SMOOTH_FROM else "train loss, smoothed", loss),
        Series("held-out loss", held_out, "other"),
    ]
    main = line_chart("Loss by step", _spoken("Loss", loss or held_out), series, x_label="step", y_label="loss")
    small = "".join(_small_chart(facts, title, lines) for title, lines in SMALL_CHARTS)
    also = f"<p class=soft>Also in {shown(facts.tracked)}.</p>" if facts.tracked else ""
    return section("Training", f"{main}<div class=small>{small}</div>{also}")


def _only_step(facts: ReportData) -> str:
    """A curve needs two points; of one, the numbers."""
    logged = {key: value for point in facts.curve for key, value in point.items()}
    names = {"loss": "Train loss", "eval_loss": "Held-out loss"}
    names |= {key: title for title, lines in SMALL_CHARTS for key in list(lines)[:1]}
    rows = [[name, figure(logged[key])] for key, name in names.items() if key in logged]
    return table(["Logged once", ""], rows) + "<p class=soft>Curves begin with the second step.</p>"


def _small_chart(facts: ReportData, title: str, lines: dict[str, str]) -> str:
    drawn = {name: _points(facts, key) for key, name in lines.items() if _points(facts, key)}
    if SMOOTHED & set(lines):
        series = [one for points in drawn.values() for one in _smoothed("smoothed", points)]
    else:
        series = [Series(*line, kind) for line, kind in zip(drawn.items(), ("main", "other"), strict=False)]
    spoken = " ".join(_spoken(name.capitalize(), points) for name, points in drawn.items())
    return line_chart(title, spoken, series, x_label="step", y_label="", height=120, from_zero=True)


def _smoothed(name: str, points: list[Point]) -> list[Series]:
    """The line; a long one as a smooth line above what was logged at each step."""
    if len(points) < SMOOTH_FROM:
        return [Series(name, points)]
    return [Series("each step", points, "faint"), Series(name, smooth(points, len(points) // 10))]


def _points(facts: ReportData, key: str) -> list[Point]:
    """Points of the curve that can be drawn."""
    return [(p["step"], p[key]) for p in facts.curve if key in p and (p[key] == 0 or 1e-30 < abs(p[key]) < 1e30)]


def _spoken(name: str, points: list[Point]) -> str:
    if not points:
        return ""
    (first, start), (last, end) = points[0], points[-1]
    low = min(y for _, y in points)
    return (
        f"{name} goes from {start:.4g} at step {first:.6g} to {end:.4g} at step {last:.6g}; the lowest is {low:.4g}. "
        f"{len(points)} points."
    )
