"""The ``preStop`` hook of a pod: wait until its last request is answered.

    python -m steps.serving.drain

A terminating pod is removed from the Service, so it receives no new requests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from steps.serving import serving_client

PORT = 5000
"""Port of the server in a pod."""

DRAIN_SECONDS = 300
"""Maximum time for the requests in progress."""

ENDPOINT_REMOVAL_SECONDS = 10.0
"""Time until every node and gateway has removed the pod from its endpoints."""


def drain(
    address: str = f"http://127.0.0.1:{PORT}",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until the server has no requests in progress, or ``DRAIN_SECONDS`` have passed."""
    end = clock() + DRAIN_SECONDS
    sleep(ENDPOINT_REMOVAL_SECONDS)
    with contextlib.suppress(serving_client.Unauthorized):  # the Secret was emptied: nobody gets an answer
        while serving_client.get_state(address).get("running") and clock() < end:
            sleep(1.0)


if __name__ == "__main__":
    drain()
