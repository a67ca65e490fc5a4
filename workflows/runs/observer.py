"""The events of a run."""

from __future__ import annotations

from workflows.runs.status import RunStatus
from workflows.runs.step import Step


class Observer:
    """Receives the events of a run in the runner's thread; the default methods ignore them."""

    def on_start(self, run: RunStatus, planned: list[str]) -> None:
        """Handle the start or resumption; ``planned`` are the tasks of the entrypoint in document order."""

    def on_step_change(self, step: Step) -> None:
        """Handle a new phase or message of a step."""

    def on_log(self, step: Step, line: str) -> None:
        """Handle a log line of a step."""

    def on_progress(self, step: Step, done: int, total: int) -> None:
        """Handle a new ``N/M`` in a step's ``ARGO_PROGRESS_FILE``."""

    def on_message(self, text: str) -> None:
        """Handle a message of the runner."""

    def on_prompt(self, text: str) -> None:
        """Handle a question to the user, who types the answer after it."""

    def on_prompt_end(self) -> None:
        """Handle the end of all questions."""

    def on_end(self, run: RunStatus) -> None:
        """Handle the end of the run."""
