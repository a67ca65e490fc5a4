"""What runs are governed by: the clock, patience, and the request to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timing:
    """The clock and the patience of a run."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    grace: float | None = None
    """Seconds between SIGTERM and SIGKILL; None: what the document says."""
    poll: float = 0.05
    """Seconds between two looks at a process."""


@dataclass
class Stop:
    """Asks the leaves at work to end, and no other to start."""

    why: str = ""
    kill: bool = False
    event: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def requested(self) -> bool:
        """Whether it was asked."""
        return self.event.is_set()

    def request(self, why: str, *, kill: bool = False) -> None:
        """Ask; ``kill`` at once instead of giving time to end."""
        self.why = self.why or why
        self.kill = self.kill or kill
        self.event.set()
