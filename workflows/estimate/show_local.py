"""The measured speed of this machine as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflows.estimate.measured_speed import LocalTime, MeasuredSpeed
from workflows.estimate.show import rounded

Row = tuple[str, str, str]
MIN_GAIN = 1.1
"""Smaller differences between dtypes are not reported: measurements vary."""


def as_text(speed: MeasuredSpeed, time: LocalTime | None) -> str:
    """Return a table of the speed by dtype, and the hours of a plan."""
    rows = [*_speeds(speed), *(_hours(time) if time else ())]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    title = f"THIS MACHINE ({speed.device}; argotune tune-bench, {speed.measured:%Y-%m-%d})"
    return "\n".join([title, *(f"{name:{widths[0]}}  {value:>{widths[1]}}  {remark}" for name, value, remark in rows)])


def as_dict(time: LocalTime) -> dict[str, Any]:
    """Return the measurement and the hours of a plan as plain values."""
    speed = time.speed
    return {
        "measured": speed.measured.isoformat(timespec="seconds"),
        "device": speed.device,
        "dtype": speed.used.dtype,
        "speeds": [
            {"dtype": each.dtype, "tokensPerSecond": each.tokens_per_second, "memoryGiB": each.memory_gib}
            for each in speed.speeds
        ],
        "rows": time.rows,
        "hoursPerThousandRows": rounded(time.hours_per_thousand_rows),
        "hours": rounded(time.training_hours),
        "upperBound": time.is_upper_bound,
    }


def _speeds(speed: MeasuredSpeed) -> Iterator[Row]:
    for measured in speed.speeds:
        used = "; tuning uses it" if measured == speed.used else ""
        remark = f"tokens/second, {measured.memory_gib:.2f} GiB of memory{used}"
        yield measured.dtype, f"{measured.tokens_per_second:,.1f}", remark
    if speed.probe:
        yield "probe", "", f"{speed.probe}: tuning chooses the dtype by it"
    gain = speed.fastest.tokens_per_second / speed.used.tokens_per_second
    if gain >= MIN_GAIN:
        yield "faster", f"{gain:.2f}", f"times, with ModelConfig.torch_dtype: {speed.fastest.dtype}"


def _hours(time: LocalTime) -> Iterator[Row]:
    bound = " at most" if time.is_upper_bound else ""
    if time.training_hours is None:
        value, unit = _duration(time.hours_per_thousand_rows)
        yield "1,000 rows", value, f"{unit}{bound}, all epochs; --rows for all"
    else:
        value, unit = _duration(time.training_hours)
        rows = f", {time.rows:,} rows" if time.rows else ""
        yield "training", value, f"{unit}{bound} on this machine{rows}"


def _duration(hours: float) -> tuple[str, str]:
    if hours >= 1:
        return f"{hours:,.2f}", "hours"
    minutes = 60 * hours
    return (f"{minutes:.1f}", "minutes") if minutes >= 1 else (f"{60 * minutes:.1f}", "seconds")
