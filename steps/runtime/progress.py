"""Progress of a step, by Argo's protocol (its docs/progress.md): ``N/M`` in the file ``ARGO_PROGRESS_FILE``."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from steps.runtime import files
from steps.runtime.pod import is_pod

FILE_VARIABLE = "ARGO_PROGRESS_FILE"
_PROGRESS = re.compile(r"\s*(\d+)/(\d+)\s*")


def parse(text: str) -> tuple[int, int] | None:
    """Return the finished and the total units; None if the text is not ``N/M``."""
    match = _PROGRESS.fullmatch(text)
    return (int(match[1]), int(match[2])) if match else None


def report(done: int, total: int, line: str = "") -> None:
    """Report that ``done`` of ``total`` units are finished, and print ``line`` if not empty.

    Argo, and the local runner, set the variable in every pod and read the file. In a pod the units are percent: Argo
    adds the units of all pods, and bytes would hide the steps of a training.
    """
    file = os.environ.get(FILE_VARIABLE)
    if total > 0 and is_pod():
        done, total = 100 * min(done, total) // total, 100
    if file and total > 0:
        # A step does not fail because its progress cannot be reported.
        with suppress(OSError):
            files.write_text(Path(file), f"{min(done, total)}/{total}\n")
    if line:
        print(line, flush=True)
