"""Shows a run to a person: a live table on a terminal, plain lines elsewhere.

Colours follow ``NO_COLOR``. All of it goes to standard error, so that standard output stays data.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from workflows.argo.phase import Phase
from workflows.runner.observer import Observer
from workflows.runner.state import Node, State

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

PROGRESS_LINE_EVERY = 10.0
"""Seconds between two lines of one task that only tell how far it is, off a terminal."""

BAR_WIDTH = 16

_LOOKS_LIKE_PROGRESS = re.compile(r"\b\d+/\d+\b|\d+(\.\d+)?\s?%")
_STYLES = {
    Phase.RUNNING: "cyan",
    Phase.SUCCEEDED: "green",
    Phase.FAILED: "bold red",
    Phase.ERROR: "bold red",
    Phase.SKIPPED: "dim",
    Phase.OMITTED: "dim",
    Phase.PENDING: "dim",
}


def choose_view(stream: TextIO | None = None, *, quiet: bool = False) -> Observer:
    """An observer that shows the run on ``stream`` (standard error), in the way that suits it."""
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
    """One line a change of state, and log lines with the task before them."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._told: dict[str, tuple[Phase, str]] = {}
        self._last_progress: dict[str, float] = {}

    def started(self, state: State, planned: list[str]) -> None:
        """Say which run this is."""
        kept = sum(node.phase is Phase.SUCCEEDED and node.type == "Container" for node in state.nodes.values())
        self._say(f"{state.name}: {f'going on, {kept} tasks kept' if state.nodes else 'started'}")

    def changed(self, node: Node) -> None:
        """One line a change."""
        if self._told.get(node.key) != (node.phase, node.message):
            self._told[node.key] = (node.phase, node.message)
            took = f" after {_duration(node)}" if node.phase.is_completed else ""
            self._say(f"{_label(node)}: {node.phase}{took}{f': {node.message}' if node.message else ''}")

    def log(self, node: Node, line: str) -> None:
        """The line, unless it only tells progress and the last such line is fresh."""
        if _LOOKS_LIKE_PROGRESS.search(line):
            now = self._clock()
            if now - self._last_progress.get(node.key, float("-inf")) < PROGRESS_LINE_EVERY:
                return
            self._last_progress[node.key] = now
        self._say(f"[{_label(node)}] {line}")

    def said(self, text: str) -> None:
        """As it is."""
        self._say(text)

    def asks(self, text: str) -> None:
        """The answer is typed on the same line."""
        print(text, end="", file=self._stream, flush=True)

    def ended(self, state: State) -> None:
        """Say what came of it."""
        self._say(f"{state.name}: {state.phase}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class LiveView(Observer):
    """A table that is drawn anew as things change: task, state, time, progress, last line of its log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._planned: list[str] = []
        self._nodes: dict[str, Node] = {}
        self._lines: dict[str, str] = {}
        self._progress: dict[str, tuple[int, int]] = {}

    def started(self, state: State, planned: list[str]) -> None:
        """Begin to draw."""
        from rich.live import Live

        self._planned = planned
        self._nodes = dict(state.nodes)
        self._live = Live(get_renderable=self.table, console=self._console, refresh_per_second=4)
        self._live.start()

    def changed(self, node: Node) -> None:
        """Remember the node; a new attempt begins with an empty bar."""
        self._nodes[node.key] = node
        if node.phase is not Phase.SUCCEEDED:
            self._progress.pop(node.key, None)

    def log(self, node: Node, line: str) -> None:
        """Remember the last line."""
        self._lines[node.key] = line

    def progress(self, node: Node, done: int, total: int) -> None:
        """Remember how far it is."""
        self._progress[node.key] = (done, total)

    def said(self, text: str) -> None:
        """Above the table."""
        self._console.print(text, markup=False, highlight=False)

    def asks(self, text: str) -> None:
        """Below the table, which stands still meanwhile."""
        if self._live and self._live.is_started:
            self._live.stop()
        self._console.print(text, end="", markup=False, highlight=False)

    def answered(self) -> None:
        """The table goes on."""
        if self._live and not self._live.is_started:
            self._live.start()

    def ended(self, state: State) -> None:
        """Leave the table as it is now."""
        if self._live:
            self._live.stop()
            self._live = None

    def table(self) -> Table:
        """The table as of now."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        for header in ("TASK", "STATE", "TIME", "PROGRESS"):
            table.add_column(header, no_wrap=True)
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)
        order = [*self._planned, *(key for key in self._nodes if key not in self._planned)]
        for key in order:
            node = self._nodes.get(key) or Node(key=key, task=key, template="", type="Container")
            indent = "  " * key.count(".")
            line = node.message or ("" if node.phase.is_fulfilled else self._lines.get(key, ""))
            state = Text(str(node.phase), style=_STYLES.get(node.phase, ""))
            table.add_row(Text(indent + node.task), state, _duration(node), self._bar(node), Text(line, style="dim"))
        return table

    def _bar(self, node: Node) -> str:
        if node.key not in self._progress or node.phase is not Phase.RUNNING:
            return ""
        done, total = self._progress[node.key]
        filled = BAR_WIDTH * min(done, total) // max(total, 1)
        return f"{'━' * filled}{'╌' * (BAR_WIDTH - filled)} {done}/{total}"


def _label(node: Node) -> str:
    """The way to the node: tasks of nested DAGs with the task they are in."""
    parent = node.key.rpartition(".")[0]
    return node.task if not parent or "(" in node.task else f"{parent}.{node.task}"


def _duration(node: Node) -> str:
    if node.started_at is None or node.phase in (Phase.SKIPPED, Phase.OMITTED):
        return ""
    passed = int((node.finished_at or time.time()) - node.started_at)
    hours, minutes, seconds = passed // 3600, passed // 60 % 60, passed % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
