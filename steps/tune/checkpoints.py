"""Checkpoints that are safe to resume from after a kill.

The trainer writes a checkpoint file by file. A marker, written after all files are on disk, shows that it is complete.
A complete checkpoint can be resumed if its settings, base model and data are those of this run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.runtime import files, progress

MARKER = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    step: int
    finished: bool
    """True if all steps are trained."""
    rows: int = 0
    """Global batch size; 0: unknown."""
    processes: int = 1
    """World size of the training."""
    dtype: str = ""
    """Dtype of computation; a resumed training keeps it, even if another is faster on its machine. Empty: unknown."""

    def report_progress(self) -> None:
        """Report the steps up to here, so that a resumed training does not begin at 0 while the model is loaded."""
        if total := self._num_steps():
            progress.report(self.step, total)

    def has_reached(self, share: float) -> bool:
        """Return True if this share of the training is done."""
        return self.finished or (share < 1 and 0 < steps_of(share, self._num_steps()) <= self.step)

    def _num_steps(self) -> int:
        """Return the steps of the whole training; 0: unknown."""
        try:
            return int(json.loads((self.folder / "trainer_state.json").read_text())["max_steps"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def history(self) -> list[dict[str, Any]]:
        """Return the log entries up to here, one per step."""
        state = json.loads((self.folder / "trainer_state.json").read_text())
        return [entry for entry in state["log_history"] if "loss" in entry]


def steps_of(share: float, num_steps: int) -> int:
    """Return the steps of a share of a training, rounded up."""
    # 0.1 * 30 is more than 3.
    return math.ceil(round(share * num_steps, 6))


def mark_complete(checkpoint: Checkpoint, fingerprint: str) -> None:
    """Write the marker, after syncing the checkpoint's files to disk."""
    sync(checkpoint.folder)
    fields = {key: value for key, value in dataclasses.asdict(checkpoint).items() if key != "folder"}
    files.write_json(checkpoint.folder / MARKER, {"fingerprint": fingerprint, **fields})
    files.sync_folder(checkpoint.folder.parent)


def latest(folder: Path, fingerprint: str) -> Checkpoint | None:
    """Return the checkpoint to resume from; remove incomplete ones and those of other settings or data."""
    usable = []
    for candidate in folder.glob("checkpoint-*"):
        try:
            marker = json.loads((candidate / MARKER).read_text())
            reason = "" if marker.pop("fingerprint") == fingerprint else "other settings or data"
            checkpoint = Checkpoint(candidate, **marker)
        except (OSError, ValueError, KeyError, TypeError):
            reason = "incomplete"
        if not reason:
            usable.append(checkpoint)
        else:
            print(f"removing {candidate.name}: {reason}", flush=True)
            # The marker first, so that a kill here leaves no marked partial checkpoint.
            (candidate / MARKER).unlink(missing_ok=True)
            shutil.rmtree(candidate)
    return max(usable, key=lambda checkpoint: checkpoint.step, default=None)


def sync(folder: Path) -> None:
    """Sync all files of a directory to disk."""
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    files.sync_folder(folder)
