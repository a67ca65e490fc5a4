"""Durations in Go's format."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration (``90s``, ``1h30m``) or of a bare number of seconds.

    Raises:
        ValueError: ``text`` is neither.
    """
    if text.isdecimal():
        return int(text)
    if not text or _PART.sub("", text):
        raise ValueError(f"`{text}` is not a duration such as `90s`, `10m` or `1h30m`")
    return sum(float(match[1]) * _SECONDS[match[3]] for match in _PART.finditer(text))
