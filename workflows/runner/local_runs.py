"""Runs of this machine by name, by Workspace, or ``@latest``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from steps.serving import benchmark_result
from workflows.errors import InvalidInput
from workflows.runner import state as states
from workflows.runner.outcome import status_from_state
from workflows.runs.status import LATEST, LOCAL, WORKSPACE_LABEL, RunStatus

WORK = Path("volumes", "work")
"""Work folder of the steps in the folder of a run."""
INTERRUPTED = "Interrupted"
"""Phase of a run that was not finished by its runner, which has ended."""


@dataclass(frozen=True)
class LocalRun:
    """A run directory and its status."""

    folder: Path
    status: RunStatus
    runner: int
    """Process id of the runner; 0 if it has ended."""

    @property
    def report(self) -> Path:
        """The report, which the exit handler writes."""
        return self.work / "report" / "report.html"

    @property
    def work(self) -> Path:
        """The work folder of the steps."""
        return self.folder / WORK

    @property
    def is_active(self) -> bool:
        """True while a runner works on it."""
        return self.runner != 0


def list_runs(runs: Path) -> list[LocalRun]:
    """Return the runs in ``runs``, newest first; directories that cannot be read as runs are omitted."""
    found = list(_read_all(path.parent for path in runs.glob("*/state.json")))
    return sorted(found, key=lambda run: (str(run.status.created), run.status.name), reverse=True)


def find_run(runs: Path, name: str) -> LocalRun | None:
    """Return the run of a name or directory, else the newest of a Workspace or ``@latest``; None if there is none."""
    exact = [path for path in (runs / name, Path(name)) if name != LATEST and (path / "state.json").is_file()]
    if exact:
        return read_run(exact[0])
    return next((run for run in list_runs(runs) if name in (LATEST, run.status.workspace)), None)


def read_run(folder: Path) -> LocalRun:
    """Return the run in ``folder``.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """
    # The runner first: if it ends in between, the state is the final one.
    runner = states.runner_of(folder)
    benchmark = benchmark_result.read(folder / WORK)
    status = status_from_state(states.read(folder))
    status = replace(status, where=LOCAL, workspace=_workspace(folder), benchmark=benchmark)
    if not runner and not status.is_ended:
        status = replace(
            status, phase=INTERRUPTED, message="its runner has ended; resume it with argotune run FILE --resume"
        )
    return LocalRun(folder, status, runner)


def _read_all(folders: Iterator[Path]) -> Iterator[LocalRun]:
    for folder in folders:
        with suppress(InvalidInput):
            yield read_run(folder)


def _workspace(folder: Path) -> str:
    with suppress(OSError, ValueError, AttributeError):
        labels = json.loads((folder / "workflow.json").read_text())["metadata"].get("labels") or {}
        return str(labels.get(WORKSPACE_LABEL, ""))
    return ""
