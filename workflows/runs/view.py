"""A run on a terminal: a live table, or plain lines where the output is not a terminal.

Colors follow ``NO_COLOR``. All output goes to standard error; standard output is for data.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from steps.runtime import terminal
from workflows.argo.phase import Phase
from workflows.runs.observer import Observer
from workflows.runs.progress_rate import ProgressRate
from workflows.runs.status import RunStatus
from workflows.runs.step import Step
from workflows.runs.table import format_duration, now

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

PROGRESS_LINE_SECONDS = 10.0
"""Minimum seconds between two progress lines of one step in plain output."""
BAR_WIDTH = 16

_PROGRESS_LINE = re.compile(r"\b\d+/\d+\b|\d+(\.\d+)?\s?%")
_STYLES: dict[str, str] = {
    Phase.RUNNING: "cyan",
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "bold red",
    Phase.ERROR: "bold red",
}


def choose_view(stream: TextIO | None = None, *, quiet: bool = False) -> Observer:
    """Return the observer that suits ``stream`` (default: standard error): live table, plain lines or nothing."""
    if quiet:
        return Observer()
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream)
        if not console.is_dumb_terminal:
            return LiveView(console)
    return PlainView(stream)


class PlainView(Observer):
    """One line for each change, and log lines prefixed with their step."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._printed: dict[str, tuple[str, str]] = {}
        self._last_progress: dict[str, float] = {}

    def on_start(self, run: RunStatus, planned: list[str]) -> None:
        """Print the name of the run."""
        done = sum(step.phase == Phase.SUCCEEDED and step.type == "Pod" for step in run.steps)
        resumed = any(step.phase for step in run.steps)
        self.on_message(f"{run.name}: {f'resumed, {done} steps already done' if resumed else 'started'}")

    def on_step_change(self, step: Step) -> None:
        """Print the new phase."""
        if self._printed.get(step.key) == (step.phase, step.message):
            return
        self._printed[step.key] = (step.phase, step.message)
        completed = step.phase == Phase.SUCCEEDED or step.is_failed
        elapsed = f" after {_elapsed(step)}" if completed else ""
        self.on_message(f"{step.label}: {step.phase}{elapsed}{f': {step.message}' if step.message else ''}")

    def on_log(self, step: Step, line: str) -> None:
        """Print the line, but progress lines only every ``PROGRESS_LINE_SECONDS``."""
        if _PROGRESS_LINE.search(line):
            moment = self._clock()
            if moment - self._last_progress.get(step.key, float("-inf")) < PROGRESS_LINE_SECONDS:
                return
            self._last_progress[step.key] = moment
        self.on_message(f"[{step.label}] {line}")

    def on_message(self, text: str) -> None:
        """Print the message."""
        print(terminal.escape(text), file=self._stream, flush=True)

    def on_prompt(self, text: str) -> None:
        """Print the question; the answer is typed on the same line."""
        print(terminal.escape(text), end="", file=self._stream, flush=True)

    def on_end(self, run: RunStatus) -> None:
        """Print the final phase."""
        self.on_message(f"{run.name}: {run.phase}")


class LiveView(Observer):
    """A table that is redrawn as steps change: name, phase, time, progress with speed, last log line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._planned: list[str] = []
        self._steps: dict[str, Step] = {}
        self._lines: dict[str, str] = {}
        self._progress: dict[str, ProgressRate] = {}

    def on_start(self, run: RunStatus, planned: list[str]) -> None:
        """Start drawing."""
        from rich.live import Live

        self._planned = planned
        self._steps = {step.key: step for step in run.steps}
        self._live = Live(get_renderable=self.table, console=self._console, refresh_per_second=4)
        self._live.start()

    def on_step_change(self, step: Step) -> None:
        """Store the step; a new attempt starts with an empty bar."""
        self._steps[step.key] = step
        if step.phase != Phase.SUCCEEDED:
            self._progress.pop(step.key, None)

    def on_log(self, step: Step, line: str) -> None:
        """Store the last line."""
        self._lines[step.key] = line

    def on_progress(self, step: Step, done: int, total: int) -> None:
        """Store the progress."""
        self._progress.setdefault(step.key, ProgressRate()).update(done, total)

    def on_message(self, text: str) -> None:
        """Print the message above the table."""
        self._console.print(terminal.escape(text), markup=False, highlight=False)

    def on_prompt(self, text: str) -> None:
        """Print the question below the table, which stops meanwhile."""
        if self._live and self._live.is_started:
            self._live.stop()
        self._console.print(terminal.escape(text), end="", markup=False, highlight=False)

    def on_prompt_end(self) -> None:
        """Resume drawing."""
        if self._live and not self._live.is_started:
            self._live.start()

    def on_end(self, run: RunStatus) -> None:
        """Stop drawing; the table remains on the screen."""
        if self._live:
            self._live.stop()
            self._live = None

    def table(self) -> Table:
        """Return the current table."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        for header in ("TASK", "STATE", "TIME", "PROGRESS"):
            table.add_column(header, no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
        for key in dict.fromkeys([*self._planned, *self._steps]):
            step = self._steps.get(key) or Step(key)
            name = "  " * key.count(".") + (step.display_name or key.rpartition(".")[2])
            phase = step.phase or str(Phase.PENDING)
            state = Text(phase, style=_STYLES.get(phase, "dim"))
            line = step.message or ("" if step.is_ended else self._lines.get(key, ""))
            table.add_row(Text(name), state, _elapsed(step), self._bar(step), Text(terminal.escape(line), style="dim"))
        return table

    def _bar(self, step: Step) -> str:
        if step.key not in self._progress or step.phase != Phase.RUNNING:
            return ""
        progress = self._progress[step.key]
        filled = int(BAR_WIDTH * progress.share)
        return f"{'━' * filled}{'╌' * (BAR_WIDTH - filled)} {progress}"


def _elapsed(step: Step) -> str:
    if step.started is None or step.phase in (Phase.SKIPPED, Phase.OMITTED):
        return ""
    return format_duration((step.finished or now()) - step.started)
