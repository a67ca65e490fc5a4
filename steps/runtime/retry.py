"""The one policy for retrying calls: exponential backoff with jitter, and the server's ``Retry-After``.

Written here and not taken from tenacity, because the pods of the inference server, which pull adapters too, run in
vLLM's image without this project's dependencies.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from steps.runtime.errors import TransientError
from steps.runtime.pod import is_pod

T = TypeVar("T")
Sleep = Callable[[float], object]
MIN_SECONDS_IN_POD = 300.0
"""Shortest time that a pod retries what is likely to pass (DNS, network, a server that restarts)."""

MAX_HASTY_ATTEMPTS = 4
"""Attempts after which a ``Retry-After`` no longer shortens the wait (restarting API servers request one second), nor
lengthens it beyond ``max_seconds``.
"""


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts, and the waits between them."""

    max_attempts: float = 5
    """Attempts in a row without progress."""
    initial_seconds: float = 1.0
    """Wait after the first failure; doubled for each further one."""
    max_seconds: float = 60.0
    """Longest wait that is not requested by the server."""
    jitter: float = 0.5
    """Part of the wait that is random, so that concurrent clients do not retry in step."""
    max_retry_after_seconds: float = 60.0
    """Cap on what a ``Retry-After`` header requests."""

    def delay(self, failures: int, retry_after: float | None = None) -> float:
        """Return the seconds to wait after ``failures`` failures in a row; ``retry_after`` is the server's request."""
        own = self._longest(failures) * random.uniform(1 - self.jitter, 1)
        if retry_after is None:
            return own
        requested = min(retry_after, self.max_retry_after_seconds)
        return requested if failures <= MAX_HASTY_ATTEMPTS else max(min(requested, self.max_seconds), own)

    def in_pod(self) -> RetryPolicy:
        """Return the policy of this process: in a pod its waits add up to ``MIN_SECONDS_IN_POD`` or more.

        A failure there costs a run, of which hours may be done; on a machine a user waits for the message.
        """
        if not is_pod():
            return self
        failures, total = MAX_HASTY_ATTEMPTS, 0.0
        while total < MIN_SECONDS_IN_POD:
            failures += 1
            total += self._longest(failures) * (1 - self.jitter)
        return replace(self, max_attempts=max(self.max_attempts, failures + 1))

    def _longest(self, failures: float) -> float:
        return min(self.initial_seconds * 2.0 ** min(failures - 1, 64), self.max_seconds)


@dataclass
class Backoff:
    """The growing wait between the attempts of one call or stream."""

    policy: RetryPolicy = field(default_factory=RetryPolicy)
    sleep: Sleep = time.sleep
    clock: Callable[[], float] = time.monotonic
    failures: int = field(default=0, init=False)
    _failing_since: float | None = field(default=None, init=False)

    def reset(self) -> None:
        """Start again with the shortest wait, after a success."""
        self.failures, self._failing_since = 0, None

    def failing_seconds(self) -> float:
        """Return the seconds since the first failure after the last success."""
        if self._failing_since is None:
            self._failing_since = self.clock()
        return self.clock() - self._failing_since

    def pause(self, retry_after: float | None = None) -> float:
        """Wait before the next attempt; return the seconds waited."""
        self.failing_seconds()
        self.failures += 1
        seconds = self.policy.delay(self.failures, retry_after)
        self.sleep(seconds)
        return seconds


def is_transient(error: Exception) -> bool:
    """Return True if the error is a ``TransientError``."""
    return isinstance(error, TransientError)


def retry_call(
    call: Callable[[], T],
    policy: RetryPolicy,
    *,
    retry_if: Callable[[Exception], bool] = is_transient,
    progress: Callable[[], int] = lambda: 0,
    log: Callable[[str], object] | None = None,
    sleep: Sleep = time.sleep,
) -> T:
    """Return the result of ``call``, repeated while it fails with an error that ``retry_if`` accepts.

    Args:
        call: What to do; its error can have an attribute ``retry_after``, in seconds.
        policy: Number of attempts and waits.
        retry_if: Return True if another attempt can succeed.
        progress: How far the call has come, for example in bytes; the count of attempts restarts after an increase.
        log: Receives one line before each wait.
        sleep: Replaced in tests, which never wait.

    Raises:
        Exception: the error of the last attempt.
    """
    failures, reached = 0, progress()
    while failures < policy.max_attempts:
        try:
            return call()
        except Exception as error:
            failures = 1 if progress() > reached else failures + 1
            reached = max(reached, progress())
            if failures >= policy.max_attempts or not retry_if(error):
                raise
            seconds = policy.delay(failures, getattr(error, "retry_after", None))
            if log:
                reason = getattr(error, "message", error)
                log(f"retrying in {seconds:.0f} s (attempt {failures + 1}/{policy.max_attempts}): {reason}")
        sleep(seconds)
    raise ValueError(f"max_attempts is {policy.max_attempts}, must be at least 1")


class Response(Protocol):
    """A response of requests, or of another client."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Header values by case-insensitive name."""


def retry_after(response: Response) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110, 10.2.3); None if it is absent or invalid."""
    try:
        return Retry().parse_retry_after(response.headers["Retry-After"])
    except (KeyError, InvalidHeader):
        return None
