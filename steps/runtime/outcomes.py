"""Results of checks before anything is created."""

from __future__ import annotations

from collections.abc import Iterator

from steps.runtime.errors import StepError


class NotChecked(str):
    """Sentence about something that could not be checked."""

    subject: str
    reason: str

    def __new__(cls, subject: str, reason: str) -> NotChecked:
        """Create the sentence."""
        sentence = super().__new__(cls, f"{subject} was not checked: {reason}")
        sentence.subject, sentence.reason = subject, reason
        return sentence


Outcomes = Iterator[str | StepError]
"""Sentences about passed checks (``str``) and skipped ones (``NotChecked``), and errors."""


def format_line(outcome: str) -> str:
    """Return the line of the log for a check without an error."""
    if isinstance(outcome, NotChecked):
        return f"not checked: {outcome.subject} ({outcome.reason})"
    return f"ok: {outcome}"


def summarize(outcomes: list[str]) -> str:
    """Return how many checks passed, and what was not checked."""
    skipped = [outcome for outcome in outcomes if isinstance(outcome, NotChecked)]
    passed = len(outcomes) - len(skipped)
    if not skipped:
        return f"all checks passed ({passed})"
    return f"{passed} checks passed; not checked: {', '.join(outcome.subject for outcome in skipped)}"
