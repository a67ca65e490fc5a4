"""Values of the report as text for people: numbers, durations, percentages, and text without control characters."""

from __future__ import annotations

import re

from steps.report.report_data import text

MAX_TEXT_LENGTH = 4000
DASH = "\N{EN DASH}"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def format_text(value: object, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return any value as text without control characters, truncated to ``max_length``."""
    plain = text(value)
    if len(plain) > max_length:
        plain = f"{plain[:max_length]} … ({len(plain) - max_length} more characters)"
    return CONTROL_CHARACTERS.sub("\ufffd", plain.replace("\r\n", "\n"))


def format_number(value: float | None) -> str:
    """Return a number with four significant digits, a large one as an integer; or a dash for None."""
    if value is None:
        return DASH
    if (value == round(value) or abs(value) >= 1e4) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def format_duration(seconds: float | None) -> str:
    """Return seconds as ``8.4 s``, ``4 min 12 s`` or ``2 h 5 min``."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def format_percent(ratio: float | None) -> str:
    """Return a ratio as ``16.2%``."""
    return DASH if ratio is None else f"{100 * ratio:.3g}%"
