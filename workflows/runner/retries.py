"""Decide if and when a failed pod is retried (Argo: ``processNodeRetries`` in ``workflow/controller/operator.go``)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from workflows.argo import expressions
from workflows.argo.duration import parse_duration
from workflows.argo.phase import Phase
from workflows.argo.workflow import Retry
from workflows.runner.state import Attempt

# Transient network errors (Argo: util/errors/errors.go).
_TRANSIENT = re.compile(
    "Connection closed by foreign host|net/http: TLS handshake timeout|i/o timeout|connection timed out"
    "|connection reset by peer|http2: client connection lost|connect: connection refused|invalid connection"
)


@dataclass(frozen=True)
class RetryAfter:
    """Start another attempt after ``wait`` seconds; it must end before ``deadline``."""

    wait: float
    deadline: float | None = None


@dataclass(frozen=True)
class GiveUp:
    """Do not retry; ``reason`` is Argo's message, empty when that of the last attempt is more specific."""

    reason: str = ""


def decide(retry: Retry | None, attempts: Sequence[Attempt]) -> RetryAfter | GiveUp:
    """Decide what follows after the last of ``attempts`` failed.

    Raises:
        ExpressionError: ``retryStrategy.expression`` has no value.
    """
    last = attempts[-1]
    if retry is None:
        return GiveUp()
    decision = RetryAfter(0.0)
    if retry.backoff:
        wait = _wait(retry, len(attempts))
        deadline = None
        if retry.backoff.max_duration is not None:
            deadline = attempts[0].started_at + parse_duration(retry.backoff.max_duration)
            if (last.finished_at or last.started_at) + wait > deadline:
                return GiveUp("backoff would exceed its maxDuration")
        decision = RetryAfter(wait, deadline)
    if not _policy_allows(retry, last):
        return GiveUp()
    if retry.limit is not None and len(attempts) > int(retry.limit):
        return GiveUp("no more retries left" if int(retry.limit) else "")
    # The number of past retries; a pod sees {{retries}} including its own.
    variables = {"retries": str(len(attempts) - 1), **last_retry(attempts)}
    if retry.expression and not expressions.evaluate_retry(retry.expression, variables):
        return GiveUp()
    return decision


def last_retry(attempts: Sequence[Attempt]) -> dict[str, str]:
    """Return ``lastRetry.*`` for the next attempt and for the expression."""
    if not attempts:
        return {"lastRetry.exitCode": "0", "lastRetry.status": "", "lastRetry.duration": "0", "lastRetry.message": ""}
    last = attempts[-1]
    return {
        "lastRetry.exitCode": "-1" if last.exit_code is None else str(last.exit_code),
        "lastRetry.status": str(last.phase),
        "lastRetry.duration": f"{(last.finished_at or last.started_at) - last.started_at:g}",
        "lastRetry.message": last.message,
    }


def _wait(retry: Retry, attempts: int) -> float:
    assert retry.backoff
    factor = int(retry.backoff.factor or 0) or 1
    wait = parse_duration(retry.backoff.duration) * float(factor) ** min(attempts - 1, 64)
    return min(wait, parse_duration(retry.backoff.cap)) if retry.backoff.cap else wait


def _policy_allows(retry: Retry, last: Attempt) -> bool:
    match retry.retry_policy or ("Always" if retry.expression else "OnFailure"):
        case "Always":
            return True
        case "OnError":
            return last.phase is Phase.ERROR
        case "OnTransientError":
            pattern = os.environ.get("TRANSIENT_ERROR_PATTERN")
            return bool(_TRANSIENT.search(last.message) or (pattern and re.search(pattern, last.message)))
    return last.phase is Phase.FAILED
