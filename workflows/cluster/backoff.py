"""How long to wait before the next try, and how often."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from workflows.cluster.failures import UNREACHABLE, ApiFailure

T = TypeVar("T")

MAX_BACKOFF_SECONDS = 30.0
MAX_ATTEMPTS = 5


@dataclass
class Backoff:
    """Waits longer from try to try, as long as a server asks for at least, and unlike others that wait too."""

    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    first: float = 0.5
    _next: float = field(default=0.0, init=False)
    _since: float | None = field(default=None, init=False)

    def reset(self) -> None:
        """It went well."""
        self._next, self._since = 0.0, None

    def passed(self) -> float:
        """Seconds since it last went well."""
        if self._since is None:
            self._since = self.clock()
        return self.clock() - self._since

    def pause(self, at_least: float | None = None) -> float:
        """Wait before the next try; gives the seconds."""
        self.passed()
        self._next = min(self._next * 2 or self.first, MAX_BACKOFF_SECONDS)
        seconds = max(self._next * random.uniform(0.75, 1.25), min(at_least or 0.0, 4 * MAX_BACKOFF_SECONDS))
        self.wait(seconds)
        return seconds


def retry_call(call: Callable[[], T], backoff: Backoff, tries: int = MAX_ATTEMPTS) -> T:
    """What ``call`` gives, which is tried again while its failure may soon pass.

    Raises:
        ApiFailure: of the last try, or one that does not pass.
    """
    for left in reversed(range(tries)):
        try:
            return call()
        except ApiFailure as failure:
            if not failure.transient or failure.reason == UNREACHABLE or not left:
                raise
            backoff.pause(failure.retry_after)
    raise AssertionError("no tries")
