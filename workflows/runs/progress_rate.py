"""Progress of a step for a person: units, speed and remaining time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from workflows.runs.table import format_duration

WINDOW_SECONDS = 60.0
"""Time over which the speed is measured."""
MIN_SECONDS = 2.0
"""Time after which a speed is shown."""
MAX_SECONDS = 10 * 365 * 86400.0
"""Longest remaining time that is shown."""
MIN_BYTES = 10_000_000
"""Total from which units are bytes: no step counts so many rows, batches or percent."""


class ProgressRate:
    """Speed of one step, from its latest progress."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()
        self._total = 0

    def update(self, done: int, total: int) -> None:
        """Record that ``done`` of ``total`` units are finished. Progress that goes back is a new attempt."""
        moment = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()
        self._total = total
        self._seen.append((moment, done))
        while len(self._seen) > 2 and moment - self._seen[0][0] > WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def share(self) -> float:
        """Finished part, from 0 to 1."""
        return min(max(self._seen[-1][1] / self._total, 0.0), 1.0) if self._seen and self._total > 0 else 0.0

    def __str__(self) -> str:
        """Return for example ``25/100 1.3/s 58s left``; speed and time as soon as they are known."""
        if not self._seen:
            return ""
        done = self._seen[-1][1]
        is_bytes = self._total >= MIN_BYTES
        counted = f"{done / 1e6:.0f}/{self._total / 1e6:.0f} MB" if is_bytes else f"{done}/{self._total}"
        elapsed, finished = (self._seen[-1][index] - self._seen[0][index] for index in (0, 1))
        if elapsed < MIN_SECONDS or finished <= 0:
            return counted
        speed = finished / elapsed
        shown = (
            f"{speed / 1e6:.1f} MB/s" if is_bytes else f"{speed:.{0 if speed >= 10 else 1 if speed >= 0.1 else 3}f}/s"
        )
        seconds = min(max(self._total - done, 0) / speed, MAX_SECONDS)
        remaining = format_duration(timedelta(seconds=seconds))
        return f"{counted} {shown} {remaining} left"
