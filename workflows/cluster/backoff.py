"""Retries of cluster requests, and waits between the connections of a stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from steps.runtime import retry
from steps.runtime.retry import Backoff, RetryPolicy, Sleep
from workflows.cluster.failures import UNREACHABLE, ApiFailure

T = TypeVar("T")
RETRY = RetryPolicy(max_attempts=5, initial_seconds=0.5, max_seconds=30.0, max_retry_after_seconds=120.0)


def new_backoff(sleep: Sleep = time.sleep, clock: Callable[[], float] = time.monotonic) -> Backoff:
    """Return the waits between the connections of a stream."""
    return Backoff(RETRY, sleep, clock)


def retry_call(call: Callable[[], T], sleep: Sleep) -> T:
    """Return the result of ``call``, which is retried while its failure is transient.

    Raises:
        ApiFailure: that of the last attempt, or one that is not transient.
    """
    return retry.retry_call(call, RETRY, retry_if=_is_retryable, sleep=sleep)


def _is_retryable(error: Exception) -> bool:
    return isinstance(error, ApiFailure) and error.is_transient and error.reason != UNREACHABLE
