"""Progress of a step, for Argo (``ARGO_PROGRESS_FILE``, its docs/progress.md) and the log."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from steps.runtime import files


def report(done: int, total: int, line: str = "") -> None:
    """Report that ``done`` of ``total`` units are finished, and print ``line`` if not empty.

    Argo sets ``ARGO_PROGRESS_FILE`` in every pod and reads ``N/M`` from it.
    """
    file = os.environ.get("ARGO_PROGRESS_FILE")
    if file and total > 0:
        # A step does not fail because its progress cannot be reported.
        with suppress(OSError):
            files.write_text(Path(file), f"{min(done, total)}/{total}\n")
    if line:
        print(line, flush=True)
