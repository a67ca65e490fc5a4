"""Keep a pod until its last request is answered (its ``preStop``): nothing new comes once it has left the Service.

python -m steps.serving.drain
"""

from __future__ import annotations

import time
from collections.abc import Callable

from steps.serving import serving_client

PORT = 5000
"""Port of a server in a pod."""

DRAIN_SECONDS = 300
"""Time for the requests that a pod is still answering."""

LEAVE_SECONDS = 10.0
"""Until every node and gateway has heard that the pod is going."""


def drain(
    address: str = f"http://127.0.0.1:{PORT}",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until the server answers nobody any more, or the pod's time is over."""
    end = clock() + DRAIN_SECONDS
    sleep(LEAVE_SECONDS)
    while serving_client.get_state(address).get("running") and clock() < end:
        sleep(1.0)


if __name__ == "__main__":
    drain()
