"""Logs of a local run's steps, from finished and running attempts."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from workflows.runner import local_runs
from workflows.runner.process import LogReader
from workflows.runs.status import RunStatus

POLL_SECONDS = 0.2

OnLine = Callable[[str, str], None]
"""Receives the label of an attempt and a line of its log."""


class Logs:
    """The logs of one run, each line passed on once."""

    def __init__(self, folder: Path, step: str, on_line: OnLine) -> None:
        """``step``: "" for all steps."""
        self._folder = folder
        self._step = step
        self._on_line = on_line
        self._readers: dict[Path, LogReader] = {}

    def read(self, run: RunStatus) -> None:
        """Pass on the lines that were written since the last call, in order of the start of the attempts."""
        attempts = [
            (attempt.started, step.key, number)
            for step in run.steps
            if self._step in ("", step.key, step.key.rpartition(".")[2])
            for number, attempt in enumerate(step.attempts, 1)
        ]
        for _, key, number in sorted(attempts, key=lambda item: (str(item[0]), item[1])):
            label = f"{key}, attempt {number}" if number > 1 else key
            for suffix in ("log", "stdout"):
                path = self._folder / "nodes" / key / f"attempt-{number}.{suffix}"
                if path not in self._readers and path.is_file():
                    self._readers[path] = LogReader(path, partial(self._on_line, label))
                if path in self._readers:
                    self._readers[path].read()

    def close(self) -> None:
        """Pass on last lines without a line break, and close the files."""
        for reader in self._readers.values():
            reader.read(final=True)


def print_logs(run: local_runs.LocalRun, step: str, on_line: OnLine) -> None:
    """Pass the existing log lines to ``on_line``; ``step``: "" for all steps."""
    logs = Logs(run.folder, step, on_line)
    logs.read(run.status)
    logs.close()


def follow(
    run: local_runs.LocalRun, step: str, on_line: OnLine, sleep: Callable[[float], object] = time.sleep
) -> RunStatus:
    """Pass the log lines to ``on_line`` until the run or the step has ended; return the last status."""
    logs = Logs(run.folder, step, on_line)
    while True:
        logs.read(run.status)
        selected = run.status.step(step) if step else None
        if not run.is_active or (selected and selected.is_ended):
            logs.close()
            return run.status
        sleep(POLL_SECONDS)
        run = local_runs.read_run(run.folder)
