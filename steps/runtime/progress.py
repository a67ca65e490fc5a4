"""How far a step is, for Argo (``ARGO_PROGRESS_FILE``, its docs/progress.md) and for who reads the log."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from steps.runtime import files


def report(done: int, total: int, line: str = "") -> None:
    """Tell that ``done`` of ``total`` units are finished, and print ``line`` if there is something to say.

    Argo sets ``ARGO_PROGRESS_FILE`` in every pod and reads ``N/M`` from it; where it is absent only the line is
    printed.
    """
    file = os.environ.get("ARGO_PROGRESS_FILE")
    if file and total > 0:
        # Progress is a courtesy: a step does not fail because it could not be told.
        with suppress(OSError):
            files.write_text(Path(file), f"{min(done, total)}/{total}\n")
    if line:
        print(line, flush=True)
