"""Waiting for what others do, up to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from steps.runtime.errors import StepError


class DeadlineExceeded(StepError):
    """What was waited for was not done by the deadline."""


class Deadline:
    """Waits, but not beyond the deadline; all waiting for a cloud goes through here, its SDK's own too."""

    def __init__(self, wait: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic):
        self._wait, self._clock = wait, clock
        self._until = self._seconds = float("inf")

    def until(self, seconds: float) -> None:
        """Set the deadline, so many seconds from now."""
        self._until, self._seconds = self._clock() + seconds, seconds

    def __call__(self, seconds: float) -> None:
        """Wait.

        Raises:
            DeadlineExceeded: it would be beyond the deadline.
        """
        if self._clock() + seconds > self._until:
            what = f"not done in {self._seconds:.0f} s"
            raise DeadlineExceeded(what, "it goes on by itself; the step finds it when tried again")
        self._wait(seconds)
