"""Cron schedules of CronWorkflows, in the format of robfig/cron v3 (``ParseStandard``), which Argo uses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from workflows.argo.duration import parse_duration

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_NAMED = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_ZONE = re.compile(r"(?:CRON_TZ|TZ)=(\S*)\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class _Field:
    name: str
    minimum: int
    maximum: int
    names: tuple[str, ...] = ()

    def parse(self, text: str) -> int:
        if text.lower() in self.names:
            return self.names.index(text.lower()) + self.minimum
        if not text.isdecimal() or not text.isascii():
            raise ValueError(f"`{text}` is not a {self.name}")
        return int(text)


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, tuple(_MONTHS)),
    _Field("weekday (Sunday is 0)", 0, 6, tuple(_DAYS)),
)


def zone(schedule: str) -> str:
    """Return the time zone in a schedule (``CRON_TZ=Europe/Paris 0 3 * * *``); empty when there is none."""
    match = _ZONE.fullmatch(schedule)
    return match[1] if match else ""


def check(schedule: str) -> None:
    """Check a schedule.

    Raises:
        ValueError: it is not a schedule; the message names the field and the reason.
    """
    match = _ZONE.fullmatch(schedule)
    rest = match[2] if match else schedule
    if rest.startswith("@"):
        _check_named(rest)
        return
    words = rest.split()
    if len(words) != len(_FIELDS):
        raise ValueError(f"{len(words)} fields instead of 5 (minute, hour, day, month, weekday)")
    for word, field in zip(words, _FIELDS, strict=True):
        for part in word.split(","):
            _check_part(part, field)


def _check_named(text: str) -> None:
    if text in _NAMED:
        return
    if not text.startswith("@every "):
        raise ValueError(f"`{text}` is not one of {', '.join(_NAMED)}, @every DURATION")
    span = text.removeprefix("@every ")
    if span.isdecimal():
        raise ValueError(f"`{span}` has no unit; use @every {span}s")
    parse_duration(span)


def _check_part(part: str, field: _Field) -> None:
    """Check a part between commas: ``*``, ``?``, ``5`` or ``1-5``, each optionally with ``/STEP``."""
    span, *steps = part.split("/")
    first, *last = span.split("-")
    if len(steps) > 1 or len(last) > 1:
        raise ValueError(f"`{part}` is not a {field.name}")
    if steps and (not steps[0].isdecimal() or int(steps[0]) == 0):
        raise ValueError(f"`{steps[0]}` in `{part}` is not a step")
    if first in ("*", "?") and not last:
        return
    start = field.parse(first)
    end = field.parse(last[0]) if last else start
    for value in (start, end):
        if not field.minimum <= value <= field.maximum:
            raise ValueError(f"{field.name} {value} is not in {field.minimum} to {field.maximum}")
    if end < start:
        raise ValueError(f"`{span}` starts after its end")
