"""Waits with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

from steps.runtime.errors import StepError


class DeadlineExceeded(StepError):
    """The operation did not finish by the deadline."""


class Deadline:
    """A sleep function that raises at the deadline; also used by the cloud SDKs."""

    def __init__(self, wait: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic):
        self._wait, self._clock = wait, clock
        self._until = self._seconds = float("inf")

    def until(self, seconds: float) -> None:
        """Set the deadline to ``seconds`` from now."""
        self._until, self._seconds = self._clock() + seconds, seconds

    def __call__(self, seconds: float) -> None:
        """Wait.

        Raises:
            DeadlineExceeded: the wait would end after the deadline.
        """
        if self._clock() + seconds > self._until:
            what = f"not done in {self._seconds:.0f} s"
            raise DeadlineExceeded(what, "it continues on the server; a retry of the step finds it")
        self._wait(seconds)
