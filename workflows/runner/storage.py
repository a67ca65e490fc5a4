"""Check, before a run, that it can write to the directories that it creates."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from workflows.argo.workflow import Workflow
from workflows.errors import Problem
from workflows.runner import volumes

PROBE_BYTES = 1024 * 1024
"""Size of the file that is written to find out if a disk is full."""


def check_storage(workflow: Workflow, folder: Path, directories: Mapping[str, Path]) -> list[Problem]:
    """Return the directories of the run, of its claims and of temporary files that cannot be written.

    Args:
        workflow: the workflow.
        folder: the run directory.
        directories: directories that the user has set for claims; these can be read-only.
    """
    problems: list[Problem | None] = [_check(folder, "use another directory: --runs-dir DIRECTORY or ARGOTUNE_RUNS")]
    claims = [volume.persistent_volume_claim for volume in workflow.spec.volumes if volume.persistent_volume_claim]
    if any(claim.claim_name not in directories for claim in claims):
        problems.append(_check_home())
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        problems.append(Problem(f"no directory for temporary files: {error.strerror}", fix="set TMPDIR"))
    return [problem for problem in problems if problem]


def _check_home() -> Problem | None:
    fix = "set ARGOTUNE_HOME to a writable directory"
    try:
        return _check(volumes.home(), fix)
    except RuntimeError as error:  # Path.home()
        return Problem(str(error), "ARGOTUNE_HOME", fix=fix)


def _check(folder: Path, fix: str) -> Problem | None:
    """Write and delete a file in the directory, or in the one in which it will be created."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Problem(f"cannot be written: {error.strerror}", path=str(folder), fix=fix)
    return None
