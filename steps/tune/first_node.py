"""The first node of a training, as seen from the others: if it is lost, they must not wait for it in a collective."""

from __future__ import annotations

import socket
import time

from steps.tune.launcher import Failure
from steps.tune.layout import Layout, NodeLost

INTERVAL_SECONDS = 15.0
MAX_FAILURES = 4
CONNECT_TIMEOUT_SECONDS = 5.0


class FirstNode:
    """Checks that rank 0 listens, from its first response on; ``OtherNodes`` of the launcher."""

    def __init__(self, layout: Layout) -> None:
        self.address = (layout.host, layout.port)
        self.checked = time.monotonic()
        self.seen = False
        self.failures = 0

    def start(self, layout: Layout, oom_retries: int) -> None:
        """Do nothing: it has started this node."""

    def stop(self) -> None:
        """Do nothing."""

    def failure(self) -> Failure | None:
        """Return a failure if rank 0 has responded before, and does not for a minute."""
        now = time.monotonic()
        if now - self.checked < INTERVAL_SECONDS:
            return None
        self.checked = now
        if self._responds():
            self.seen, self.failures = True, 0
        else:
            self.failures += self.seen
        if self.failures < MAX_FAILURES:
            return None
        return Failure(NodeLost("the first node of the training does not respond"))

    def _responds(self) -> bool:
        try:
            socket.create_connection(self.address, CONNECT_TIMEOUT_SECONDS).close()
        except OSError:
            return False
        return True
