"""A local run in the terminal while another process runs it."""

from __future__ import annotations

import time
from collections.abc import Callable

from workflows.runner import local_runs
from workflows.runs.changes import Changes
from workflows.runs.observer import Observer
from workflows.runs.status import RunStatus

POLL_SECONDS = 0.5


def show(run: local_runs.LocalRun, observer: Observer, sleep: Callable[[float], object] = time.sleep) -> RunStatus:
    """Send the events of a run to ``observer`` until its runner has ended; return its last status.

    Raises:
        KeyboardInterrupt: the user stopped watching; the run continues.
    """
    changes = Changes(observer)
    try:
        while True:
            changes.send(run.status)
            if not run.is_active:
                return run.status
            sleep(POLL_SECONDS)
            run = local_runs.read_run(run.folder)
    finally:
        changes.end()
