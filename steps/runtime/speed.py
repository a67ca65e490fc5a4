"""Minimum speed of a transfer, below which it counts as stalled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from steps.runtime.errors import TransientError


@dataclass(frozen=True)
class MinSpeed:
    """Least speed, averaged over ``seconds``."""

    bytes_per_second: float = 1000.0
    seconds: float = 60.0

    @property
    def min_bytes(self) -> int:
        """Bytes that must arrive within ``seconds``."""
        return max(1, int(self.bytes_per_second * self.seconds))


MIN_SPEED = MinSpeed()


class SpeedGuard:
    """Measurement of one transfer in windows of ``MinSpeed.seconds``."""

    def __init__(self, limit: MinSpeed, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._start = clock()
        self._bytes = 0

    def remaining_seconds(self) -> float:
        """Return the seconds to the end of the window."""
        return max(0.0, self._start + self._limit.seconds - self._clock())

    def add(self, count: int) -> None:
        """Record received bytes.

        Raises:
            TransientError: the window is over, and less than the minimum arrived.
        """
        self._bytes += count
        if self.remaining_seconds() > 0:
            return
        if self._bytes < self._limit.min_bytes:
            raise TransientError(
                f"stalled: {self._bytes} bytes in {self._limit.seconds:g} s "
                f"(minimum {self._limit.bytes_per_second / 1000:g} kB/s)"
            )
        self._start, self._bytes = self._clock(), 0
