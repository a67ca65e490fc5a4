"""Retries: what Argo's processNodeRetries decides, and the loop around it, on a clock that doesn't wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runner_documents import Clock, ClockAtFile, dag, inputs, leaf, log_of, task, workflow

from workflows import runner
from workflows.argo.phase import Phase
from workflows.argo.workflow import Retry
from workflows.runner import retries
from workflows.runner.outcome import Outcome
from workflows.runner.retries import GiveUp, RetryAfter
from workflows.runner.state import Attempt

RETRY_HELPS = "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) not in [2, 3, 4, 5, 6]"


def failed(*codes: int | None, message: str = "") -> list[Attempt]:
    """Attempts of one second each, one after the other; None is an Error."""
    return [
        Attempt(
            number=i + 1,
            phase=Phase.ERROR if code is None else Phase.FAILED,
            exit_code=code,
            message=message,
            started_at=100.0 + i,
            finished_at=101.0 + i,
        )
        for i, code in enumerate(codes)
    ]


def decide(attempts: list[Attempt], **strategy: Any) -> RetryAfter | GiveUp:
    return retries.decide(Retry.model_validate(strategy), attempts)


@pytest.mark.parametrize(
    ("strategy", "code", "again"),
    [
        ({"limit": 1}, 1, True),
        ({"limit": 1}, None, False),  # OnFailure is the default
        ({"limit": 1, "retryPolicy": "OnError"}, None, True),
        ({"limit": 1, "retryPolicy": "OnError"}, 1, False),
        ({"limit": 1, "retryPolicy": "Always"}, None, True),
        ({"limit": 0}, 1, False),
        ({}, 1, True),  # no limit: for ever
        ({"limit": 1, "expression": RETRY_HELPS}, None, True),  # with an expression: Always
        ({"limit": 1, "expression": RETRY_HELPS}, 1, True),
        ({"limit": 1, "expression": RETRY_HELPS}, 137, True),
        ({"limit": 1, "expression": RETRY_HELPS}, 2, False),
        ({"limit": 1, "expression": RETRY_HELPS}, 6, False),
        ({"limit": 1, "retryPolicy": "OnError", "expression": "true"}, 1, False),
    ],
)
def test_policy_and_expression(strategy: dict[str, Any], code: int | None, again: bool) -> None:
    assert isinstance(decide(failed(code), **strategy), RetryAfter) is again


def test_limit_counts_retries() -> None:
    assert isinstance(decide(failed(1, 1), limit=2), RetryAfter)
    assert decide(failed(1, 1, 1), limit=2) == GiveUp("no more retries left")


def test_expression_sees_the_number_of_past_retries() -> None:
    """0 after the first attempt, as text (Argo: ``buildRetryStrategyLocalScope``)."""
    strategy = {"limit": 9, "expression": "asInt(retries) < 2"}
    made = [isinstance(decide(failed(*[1] * attempts), **strategy), RetryAfter) for attempts in (1, 2, 3)]
    assert made == [True, True, False]


def test_only_network_errors_are_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = {"limit": 1, "retryPolicy": "OnTransientError"}
    assert isinstance(decide(failed(1, message="read: connection reset by peer"), **policy), RetryAfter)
    assert decide(failed(1, message="no rows"), **policy) == GiveUp()
    monkeypatch.setenv("TRANSIENT_ERROR_PATTERN", "no r.ws")
    assert isinstance(decide(failed(1, message="no rows"), **policy), RetryAfter)


def test_backoff_grows_to_its_cap() -> None:
    strategy = {"limit": 9, "backoff": {"duration": "10s", "factor": "2", "cap": "1m"}}
    waits = [decide(failed(*[1] * n), **strategy) for n in (1, 2, 3, 4)]
    assert waits == [RetryAfter(10.0), RetryAfter(20.0), RetryAfter(40.0), RetryAfter(60.0)]
    assert decide(failed(1, 1, 1), limit=9, backoff={"duration": "5"}) == RetryAfter(5.0)


def test_backoff_ends_before_its_max_duration() -> None:
    backoff = {"duration": "10s", "factor": 2, "maxDuration": "25s"}
    assert decide(failed(1), limit=9, backoff=backoff) == RetryAfter(10.0, deadline=125.0)
    assert decide(failed(1, 1, 1), limit=9, backoff=backoff) == GiveUp("backoff would exceed its maxDuration")


# Fails until it has been tried as often as its second argument says.
FLAKY = """import os, sys
count = sys.argv[1]; n = int(open(count).read()) + 1 if os.path.exists(count) else 1
open(count, 'w').write(str(n)); print('try', n, *sys.argv[3:])
sys.exit(0 if n >= int(sys.argv[2]) else 1)"""


def flaky(tmp_path: Path, times: int, *more: str, clock: Clock | None = None, **strategy: Any) -> Outcome:
    template = leaf("a", FLAKY, str(tmp_path / "count"), str(times), *more, retryStrategy=strategy)
    document = workflow(dag(task("a")), template)
    return runner.start(document, tmp_path / "run", name="test", timing=(clock or Clock()).timing)


def test_container_is_retried_after_its_backoff(tmp_path: Path) -> None:
    clock = Clock()
    backoff = {"duration": "1m", "factor": "3"}
    outcome = flaky(tmp_path, 3, "{{retries}}", "{{lastRetry.exitCode}}", clock=clock, limit="5", backoff=backoff)
    assert outcome.phase == "Succeeded"
    assert clock.waits == [60.0, 180.0]
    assert [str(attempt.phase) for attempt in outcome.nodes["a"].attempts] == ["Failed", "Failed", "Succeeded"]
    assert log_of(tmp_path / "run", "a", 1).strip() == "try 1 0 0"
    assert log_of(tmp_path / "run", "a", 3).strip() == "try 3 2 1"


def test_exhausted_retries_fail_with_the_last_message(tmp_path: Path) -> None:
    outcome = flaky(tmp_path, 9, limit=2)
    assert len(outcome.nodes["a"].attempts) == 3
    assert outcome.message == "a failed: exit code 1: try 3 (no more retries left)"


def test_no_retry_without_strategy(tmp_path: Path) -> None:
    document = workflow(dag(task("a")), leaf("a", FLAKY, str(tmp_path / "count"), "2"))
    assert runner.start(document, tmp_path / "run", name="x", timing=Clock().timing).phase == "Failed"


def test_strategy_from_inputs(tmp_path: Path) -> None:
    template = leaf(
        "a",
        FLAKY,
        str(tmp_path / "count"),
        "3",
        retryStrategy={"limit": "{{inputs.parameters.n}}"},
        inputs=inputs("n"),
    )
    document = workflow(dag(task("a", arguments={"n": "2"})), template)
    assert runner.start(document, tmp_path / "run", name="x", timing=Clock().timing).phase == "Succeeded"


def test_expression_without_value_is_reported(tmp_path: Path) -> None:
    outcome = flaky(tmp_path, 2, limit=2, expression="asInt(lastRetry.message) > 1")
    assert outcome.phase == "Failed"
    assert "no retry: `asInt(" in outcome.message


def test_an_attempt_ends_at_the_max_duration(tmp_path: Path) -> None:
    code = """import os, sys, time
if not os.path.exists(sys.argv[1]): open(sys.argv[1], 'w'); sys.exit(1)
open(sys.argv[2], 'w'); time.sleep(600)"""
    second = tmp_path / "second"
    strategy = {"limit": 5, "backoff": {"duration": "0s", "maxDuration": "1h"}}
    document = workflow(dag(task("a")), leaf("a", code, str(tmp_path / "first"), str(second), retryStrategy=strategy))
    outcome = runner.start(document, tmp_path / "run", name="x", timing=_skipping(ClockAtFile(second, 3601)))
    assert len(outcome.nodes["a"].attempts) == 2
    assert "maxDuration" in outcome.message


def _skipping(clock: ClockAtFile) -> Any:
    """The clock, without waits between attempts."""
    from workflows.runner.control import Timing

    return Timing(now=clock.now, sleep=Clock().sleep, grace=5.0, poll=0.01)
