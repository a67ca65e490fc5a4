"""Controls of a run: its clock, its intervals, and the request to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timing:
    """Clock and intervals of a run."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    grace: float | None = None
    """Seconds between SIGTERM and SIGKILL; None for the document's value."""
    poll: float = 0.05
    """Seconds between two polls of a process."""


@dataclass
class Stop:
    """Request to end the running pods and to start no others."""

    reason: str = ""
    kill: bool = False
    event: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def requested(self) -> bool:
        """True once a stop was requested."""
        return self.event.is_set()

    def request(self, reason: str, *, kill: bool = False) -> None:
        """Request a stop; ``kill`` skips the grace period."""
        self.reason = self.reason or reason
        self.kill = self.kill or kill
        self.event.set()
