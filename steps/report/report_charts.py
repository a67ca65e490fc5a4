"""Line charts as inline SVG: sharp at every width, readable on a phone, themed by the page's style sheet.

The SVG is the plot area itself and takes the width it gets; positions are percentages, so that text and strokes keep
their size. Lines live in an inner SVG that is stretched; labels stand outside of the plot area (overflow: visible).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MAX_POINTS = 600
MAX_DOTS = 60

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Points that belong together; ``kind`` is the CSS class: ``main``, ``faint`` or ``other``."""

    name: str
    points: Sequence[Point]
    kind: str = "main"


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
) -> str:
    """A figure with a caption, axes and one line a series; empty text where there is nothing to draw.

    ``description`` is what a screen reader says instead of the drawing.
    """
    drawn = [one for one in series if one.points]
    if not drawn:
        return ""
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    small = height < 200  # and narrow: others stand beside it
    across = _axis(min(xs), max(xs), 3 if small else 6, whole=True, tight=True)
    up = _axis(min([0.0, *ys] if from_zero else ys), max(ys), 3 if small else 5)
    name = re.sub(r"\W+", "-", title.lower())
    return (
        f"<figure class=chart><figcaption><b>{escape(title)}</b>{_legend(drawn)}</figcaption>"
        f'<div class=plot><svg role=img aria-labelledby="{name}-t {name}-d" width="100%" height="{height}">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
        f"{_grid(across, up, x_label, y_label)}{''.join(_line(one, across, up) for one in drawn)}"
        "</svg></div></figure>"
    )


def smooth(points: Sequence[Point], window: int) -> list[Point]:
    """Centred moving mean; narrower at the start, where loss falls steeply and a wide window would hide it."""
    result = []
    for index, (x, _) in enumerate(points):
        reach = min(window // 2, index)
        near = points[index - reach : index + reach + 1]
        result.append((x, sum(y for _, y in near) / len(near)))
    return result


def _axis(low: float, high: float, about: int, *, whole: bool = False, tight: bool = False) -> _Axis:
    """A range with round ticks; ``tight`` ends where the data ends, otherwise at a tick."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
        tight = False
    step = _round_step((high - low) / about)
    step = max(1.0, step) if whole else step
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [tick * step for tick in range(first, last + 1)]
    if tight:
        return _Axis(low, high, tuple(tick for tick in ticks if low <= tick <= high))
    return _Axis(ticks[0], ticks[-1], tuple(ticks))


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.99), 10 * power)


def _grid(across: _Axis, up: _Axis, x_label: str, y_label: str) -> str:
    parts = []
    for tick in up.ticks:
        y = 100 - up.percent(tick)
        parts.append(f'<line class=grid x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>')
        parts.append(f'<text class=tick x="-8" y="{y:.2f}%" dy=".35em" text-anchor=end>{_short(tick)}</text>')
    for tick in across.ticks:
        x = across.percent(tick)
        parts.append(f'<text class=tick x="{x:.2f}%" y="100%" dy="1.5em" text-anchor=middle>{_short(tick)}</text>')
    parts.append('<line class=axis x1="0" x2="100%" y1="100%" y2="100%"/>')
    parts.append(f'<text class=label x="100%" y="100%" dy="2.9em" text-anchor=end>{escape(x_label)}</text>')
    parts.append(f'<text class=label x="0" y="0" dy="-1.2em" dx="-3.2em">{escape(y_label)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    """A tick in few characters: ``1.5e-4``, ``250``, ``12.5k``, ``3M``."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    if 1e4 <= abs(value) < 1e9:
        return f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
    mantissa, exponent = f"{value:.3e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _line(one: Series, across: _Axis, up: _Axis) -> str:
    points = _thin(one.points)
    spots = [(10 * across.percent(x), 1000 - 10 * up.percent(y)) for x, y in points]
    path = "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    drawn = (
        '<svg viewBox="0 0 1000 1000" preserveAspectRatio=none width="100%" height="100%" overflow=visible>'
        f'<path class="line {one.kind}" d="{path}"/></svg>'
    )
    if len(points) > MAX_DOTS or one.kind == "faint":
        return drawn
    return drawn + "".join(
        f'<circle class="dot {one.kind}" cx="{x / 10:.2f}%" cy="{y / 10:.2f}%" r="3">'
        f"<title>{escape(one.name)} {value:.4g} at {at:.6g}</title></circle>"
        for (x, y), (at, value) in zip(spots, points, strict=True)
    )


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    """At most ``MAX_POINTS`` points: of each group the lowest and the highest, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return points
    size = math.ceil(2 * len(points) / MAX_POINTS)
    kept = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        kept += sorted({min(group, key=lambda p: p[1]), max(group, key=lambda p: p[1])})
    return kept


def _legend(drawn: Sequence[Series]) -> str:
    if len(drawn) < 2:
        return ""
    return "".join(f'<span class="key {one.kind}">{escape(one.name)}</span>' for one in drawn)
