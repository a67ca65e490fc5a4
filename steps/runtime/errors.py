"""Errors of steps, with their exit codes.

StepError                 exit 1   the step failed; a retry can succeed
+-- TransientError        exit 1   the failure is temporary; a retry is likely to succeed
+-- BadInput              exit 2   the user's input is wrong; a retry fails again
+-- GateFailed            exit 3   no adapter is good enough
+-- InsufficientCapacity  exit 4   quota, instance type, memory or disk is not available
+-- TimeLimit             exit 6   a time or budget limit was reached
"""

from __future__ import annotations

from collections.abc import Sequence


class StepError(Exception):
    """A failed step: one sentence with the reason, and one with the fix."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class TransientError(StepError):
    """A temporary failure, such as a lost connection or a busy server."""

    def __init__(self, message: str, fix: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, fix)
        self.retry_after = retry_after
        """Seconds that the server asks to wait; None if it does not say."""


class BadInput(StepError):
    """The user's input (data, reference, setting) is wrong."""

    exit_code = 2


class GateFailed(StepError):
    """No adapter is good enough."""

    exit_code = 3


class InsufficientCapacity(StepError):
    """Quota, instance type, memory or disk is not available."""

    exit_code = 4


class TimeLimit(StepError):
    """A time or budget limit was reached."""

    exit_code = 6


def combine_errors(errors: Sequence[StepError]) -> StepError:
    """Return one error for all, of the class that a retry cannot fix if one of them is, so that nothing is retried."""
    if len(errors) == 1:
        return errors[0]
    kinds = (BadInput, InsufficientCapacity, StepError)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for error in errors))
    messages = [f"({number}) {error.message}" for number, error in enumerate(errors, 1)]
    fixes = [f"({number}) {error.fix}" for number, error in enumerate(errors, 1)]
    return kind(f"{len(errors)} errors, nothing was created: {'; '.join(messages)}", "; ".join(fixes))
