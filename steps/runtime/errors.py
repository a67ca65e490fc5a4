"""What a step can fail with.

StepError            exit 1   the step failed; a retry may help
+-- BadInput         exit 2   what the user gave is wrong; a retry does not help
+-- GateFailed      exit 3   no adapter was good enough
+-- InsufficientCapacity       exit 4   quota, SKU or disk is not there
+-- TimeLimit        exit 6   a time or budget cap was reached
"""


class StepError(Exception):
    """A step failed: one sentence that says what, and one that says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class BadInput(StepError):
    """What the user gave (data, reference, setting) is wrong."""

    exit_code = 2


class GateFailed(StepError):
    """No adapter was good enough to go on with."""

    exit_code = 3


class InsufficientCapacity(StepError):
    """Quota, SKU, memory or disk is not there."""

    exit_code = 4


class TimeLimit(StepError):
    """A time or budget cap was reached."""

    exit_code = 6
