"""Checkpoints of a training that can be trusted after a kill.

The trainer writes a checkpoint file by file. One is whole when it has our marker, which is written last, after all
else is on disk; and it is of use when it was made with the settings, base model and data of this run.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime import files

MARKER = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    step: int
    finished: bool
    """No step is left to train."""
    rows: int = 0
    """That a step learns from; 0: not known."""
    processes: int = 1
    """That trained together."""

    def history(self) -> list[dict[str, Any]]:
        """What was logged up to here, an entry a step."""
        state = json.loads((self.folder / "trainer_state.json").read_text())
        return [entry for entry in state["log_history"] if "loss" in entry]


def mark_complete(checkpoint: Checkpoint, fingerprint: str) -> None:
    """Say that the checkpoint is whole; what it holds is on disk before."""
    sync(checkpoint.folder)
    told = {key: value for key, value in dataclasses.asdict(checkpoint).items() if key != "folder"}
    files.write_json(checkpoint.folder / MARKER, {"fingerprint": fingerprint, **told})
    files.sync_folder(checkpoint.folder.parent)


def latest(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The checkpoint to go on from. Those that are torn, or of other settings or data, are removed."""
    found = []
    for candidate in folder.glob("checkpoint-*"):
        try:
            marker = json.loads((candidate / MARKER).read_text())
            usable = marker.pop("fingerprint") == fingerprint
            checkpoint = Checkpoint(candidate, **marker)
            reason = "of other settings or data"
        except (OSError, ValueError, KeyError, TypeError):
            usable, reason = False, "not whole"
        if usable:
            found.append(checkpoint)
        else:
            print(f"removing {candidate.name}: {reason}", flush=True)
            # The marker first: a kill here must not leave a marked part.
            (candidate / MARKER).unlink(missing_ok=True)
            shutil.rmtree(candidate)
    return max(found, key=lambda checkpoint: checkpoint.step, default=None)


def sync(folder: Path) -> None:
    """Bring all files of a folder to disk."""
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    files.sync_folder(folder)
