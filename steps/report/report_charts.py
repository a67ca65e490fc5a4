"""Line charts as positions for inline SVG: sharp at every width, readable on a phone, themed by the style sheet.

The SVG is the plot area and takes the available width; positions are percentages, so that text and strokes keep their
size. Lines are in an inner SVG that is stretched; labels are outside the plot area (overflow: visible). The markup is
in ``templates/training.html.jinja``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

MAX_POINTS = 600
MAX_DOTS = 60
SMALL_HEIGHT = 200

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points of one line; ``kind`` is the CSS class: ``main``, ``faint`` or ``other``."""

    name: str
    points: Sequence[Point]
    kind: str = "main"


@dataclass(frozen=True)
class Tick:
    """A label on an axis."""

    position: str
    """CSS percentage."""
    label: str


@dataclass(frozen=True)
class Dot:
    """A point that is drawn as a circle with a tooltip."""

    x: str
    y: str
    tooltip: str


@dataclass(frozen=True)
class Line:
    """A series in the coordinates of the drawing."""

    name: str
    kind: str
    path: str
    """SVG path in a view box of 1000 by 1000."""
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Chart:
    """A figure with a caption, axes and lines."""

    title: str
    description: str
    """Text for screen readers."""
    x_label: str
    y_label: str
    height: int
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]

    @property
    def id(self) -> str:
        """Prefix of the ids of its elements."""
        return re.sub(r"\W+", "-", self.title.lower())


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    ticks: tuple[float, ...]

    def percent(self, value: float) -> float:
        return 100 * (value - self.low) / (self.high - self.low)


def line_chart(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    height: int = 280,
    from_zero: bool = False,
) -> Chart | None:
    """Return a chart with one line per series; None if there are no points."""
    drawn = [line for line in series if line.points]
    if not drawn:
        return None
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    is_small = height < SMALL_HEIGHT  # and narrow, with others next to it
    x_axis = _axis(min(xs), max(xs), 3 if is_small else 6, integers=True, tight=True)
    y_axis = _axis(min([0.0, *ys] if from_zero else ys), max(ys), 3 if is_small else 5)
    return Chart(
        title, description, x_label, y_label, height,
        x_ticks=[Tick(f"{x_axis.percent(tick):.2f}%", _format_tick(tick)) for tick in x_axis.ticks],
        y_ticks=[Tick(f"{100 - y_axis.percent(tick):.2f}%", _format_tick(tick)) for tick in y_axis.ticks],
        lines=[_line(line, x_axis, y_axis) for line in drawn],
    )  # fmt: skip


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Return the centered moving mean; narrower at the start, where a wide window would hide how loss falls."""
    result = []
    for index, (x, _) in enumerate(points):
        reach = min(window // 2, index)
        near = points[index - reach : index + reach + 1]
        result.append((x, sum(y for _, y in near) / len(near)))
    return result


def _axis(low: float, high: float, num_ticks: int, *, integers: bool = False, tight: bool = False) -> _Axis:
    """Return a range with round ticks; it ends at a tick, or with the data if ``tight``."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
        tight = False
    step = _round_step((high - low) / num_ticks)
    step = max(1.0, step) if integers else step
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [tick * step for tick in range(first, last + 1)]
    if tight:
        return _Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high))
    return _Axis(ticks[0], ticks[-1], tuple(ticks))


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= step * 0.99), 10 * power)


def _format_tick(value: float) -> str:
    """Return a tick in few characters: ``1.5e-4``, ``250``, ``12.5k``, ``3M``."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    if 1e4 <= abs(value) < 1e9:
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _line(series: Series, x_axis: _Axis, y_axis: _Axis) -> Line:
    points = _thin(series.points)
    spots = [(10 * x_axis.percent(x), 1000 - 10 * y_axis.percent(y)) for x, y in points]
    path = "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    has_dots = len(points) <= MAX_DOTS and series.kind != "faint"
    dots = [
        Dot(f"{x / 10:.2f}%", f"{y / 10:.2f}%", f"{series.name} {value:.4g} at {step:.6g}")
        for (x, y), (step, value) in zip(spots, points, strict=True)
    ]
    return Line(series.name, series.kind, path, dots if has_dots else [])


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """Return at most ``MAX_POINTS`` points: the lowest and the highest of each group, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(2 * len(points) / MAX_POINTS)
    thinned = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        thinned += sorted({min(group, key=lambda p: p[1]), max(group, key=lambda p: p[1])})
    return thinned
