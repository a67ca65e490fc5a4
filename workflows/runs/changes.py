"""The changes of a run between two reads of its status, as events."""

from __future__ import annotations

from workflows.runs.observer import Observer
from workflows.runs.status import RunStatus
from workflows.runs.step import Step


class Changes:
    """Sends what has changed since the last status to an observer."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._shown: dict[str, Step] = {}
        self._run: RunStatus | None = None

    def send(self, run: RunStatus) -> None:
        """Send the changes since the last call."""
        if not self._shown:
            self._observer.on_start(run, [step.key for step in run.steps])
        for step in run.steps:
            if step.phase and step != self._shown.get(step.key):
                self._observer.on_step_change(step)
                if step.progress:
                    self._observer.on_progress(step, *step.progress)
            self._shown[step.key] = step
        self._run = run

    def end(self) -> None:
        """Send the end of the run, unless nothing was sent."""
        if self._run is not None and self._shown:
            self._observer.on_end(self._run)
