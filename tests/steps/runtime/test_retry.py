from __future__ import annotations

import math

import pytest
import requests

from steps.runtime.errors import BadInput, TransientError
from steps.runtime.retry import Backoff, RetryPolicy, retry_after, retry_call

EXACT = RetryPolicy(max_attempts=4, initial_seconds=1.0, max_seconds=3.0, jitter=0.0, max_retry_after_seconds=60.0)


class Flaky:
    """A call that raises the given errors in turn, then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def busy(count: int) -> list[Exception]:
    return [TransientError("busy") for _ in range(count)]


def test_waits_double_up_to_the_maximum() -> None:
    waits: list[float] = []
    assert retry_call(Flaky(*busy(3)), EXACT, sleep=waits.append) == "done"
    assert waits == [1.0, 2.0, 3.0]


def test_the_last_error_is_raised_after_max_attempts() -> None:
    waits: list[float] = []
    call = Flaky(*busy(9))
    with pytest.raises(TransientError, match="busy"):
        retry_call(call, EXACT, sleep=waits.append)
    assert call.calls == 4 and len(waits) == 3


def test_other_errors_are_not_retried() -> None:
    waits: list[float] = []
    with pytest.raises(BadInput):
        retry_call(Flaky(BadInput("no")), EXACT, sleep=waits.append)
    assert waits == []


def test_retry_if_selects_the_errors() -> None:
    waits: list[float] = []
    call = Flaky(KeyError("a"), ValueError("b"))
    with pytest.raises(ValueError, match="b"):
        retry_call(call, EXACT, retry_if=lambda error: isinstance(error, KeyError), sleep=waits.append)
    assert waits == [1.0]


@pytest.mark.parametrize(("requested", "waited"), [(0.0, 0.0), (7.0, 7.0), (9999.0, 60.0)])
def test_retry_after_replaces_the_backoff_up_to_its_cap(requested: float, waited: float) -> None:
    waits: list[float] = []
    retry_call(Flaky(TransientError("busy", retry_after=requested)), EXACT, sleep=waits.append)
    assert waits == [waited]


@pytest.mark.parametrize("requested", [None, 0.0, 1.0])
@pytest.mark.parametrize("max_attempts", [2, 6])
def test_a_pod_retries_for_five_minutes(
    monkeypatch: pytest.MonkeyPatch, requested: float | None, max_attempts: int
) -> None:
    policy = RetryPolicy(max_attempts=max_attempts)
    assert policy.in_pod() == policy
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    waits: list[float] = []
    with pytest.raises(TransientError):
        retry_call(Flaky(*[TransientError("busy", retry_after=requested)] * 99), policy.in_pod(), sleep=waits.append)
    assert 300 <= sum(waits) <= 1200


def test_a_pod_does_not_follow_long_requests_of_a_server_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    policy = RetryPolicy(max_retry_after_seconds=300.0).in_pod()
    waits: list[float] = []
    with pytest.raises(TransientError):
        retry_call(Flaky(*[TransientError("busy", retry_after=900.0)] * 99), policy, sleep=waits.append)
    assert waits[:4] == [300.0] * 4 and set(waits[4:]) == {60.0}


def test_progress_starts_the_count_again() -> None:
    reached = [0, 0, 0, 5, 5, 5, 9, 9, 9, 9]
    call = Flaky(*busy(20))
    with pytest.raises(TransientError):
        retry_call(call, EXACT, progress=lambda: reached[min(call.calls, 9)], sleep=lambda seconds: None)
    assert call.calls == 9  # the attempts 3 and 6 brought more; after the latter three more failed


def test_each_wait_is_logged_with_its_reason() -> None:
    lines: list[str] = []
    retry_call(Flaky(*busy(1)), EXACT, log=lines.append, sleep=lambda seconds: None)
    assert lines == ["retrying in 1 s (attempt 2/4): busy"]


def test_attempts_without_limit() -> None:
    call = Flaky(*busy(100))
    assert retry_call(call, RetryPolicy(max_attempts=math.inf), sleep=lambda seconds: None) == "done"
    assert call.calls == 101


def test_jitter_shortens_a_wait_by_at_most_its_part() -> None:
    policy = RetryPolicy(jitter=0.5)
    waits = {policy.delay(3) for _ in range(50)}
    assert len(waits) > 1 and all(2.0 <= seconds <= 4.0 for seconds in waits)


def test_backoff_of_a_stream_grows_until_reset() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    backoff = Backoff(EXACT, sleep, lambda: now[0])
    assert [backoff.pause(), backoff.pause()] == [1.0, 2.0]
    assert backoff.failing_seconds() == 3.0
    backoff.reset()
    assert backoff.failing_seconds() == 0.0 and backoff.pause() == 1.0


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), (None, None)])
def test_retry_after_header(header: str | None, seconds: float | None) -> None:
    response = requests.Response()
    if header is not None:
        response.headers["retry-after"] = header
    assert retry_after(response) == seconds
