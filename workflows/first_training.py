"""The length of a first training, from the number of rows on this machine."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from pathlib import Path

from steps.runtime.errors import StepError
from steps.tune.settings import TrainingOptions
from workflows.errors import Problem

EVAL_SPLIT = 0.1
"""Fraction of the rows that is held out."""
MIN_STEPS = 100
"""Optimizer steps after which an adapter has learned something from rows of any kind."""
MAX_EPOCHS = 20
"""Passes after which few rows are only memorized."""
MAX_BYTES = 16 * 1024 * 1024
"""Size of data that is read to count its rows; more has enough rows for the default."""


def count_training_rows(folder: Path, pattern: str) -> int | None:
    """Return the rows that the download step selects for the training; None if they are too many to read.

    Raises:
        StepError: files or rows are invalid, as the run would report it.
    """
    from steps.data.formats.folders import find_data_files
    from steps.download.settings import Settings
    from steps.download.step import download

    files = find_data_files(folder, pattern or None).files.values()
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        return None
    with tempfile.TemporaryDirectory(prefix="argotune-init-") as work, contextlib.redirect_stdout(io.StringIO()):
        return download(Settings(work=Path(work), source=folder, pattern=pattern, eval_split=EVAL_SPLIT)).rows


def try_to_count(folder: Path, pattern: str) -> tuple[int | None, Problem | None]:
    """Return the number of training rows, None if it is unknown; and why the rows cannot be read."""
    try:
        return count_training_rows(folder, pattern), None
    except StepError as error:
        return None, Problem(error.message, "--data", fix=error.fix)
    except ImportError:  # installed without argotune[data]
        return None, None


def steps_per_epoch(rows: int) -> int:
    """Return the optimizer steps of one pass over the rows."""
    return math.ceil(rows / TrainingOptions().batch_size)


def choose_epochs(rows: int | None) -> int:
    """Return the epochs for at least ``MIN_STEPS``: the default for many or unknown rows, at most ``MAX_EPOCHS``."""
    default = int(TrainingOptions().epochs)
    if not rows:
        return default
    return max(default, min(MAX_EPOCHS, math.ceil(MIN_STEPS / steps_per_epoch(rows))))


def explain_epochs(rows: int | None) -> str:
    """Return why that number of epochs was chosen, as a comment."""
    options = TrainingOptions()
    if not rows:
        few = MIN_STEPS * options.batch_size // int(options.epochs)
        return f"increase it for fewer than {few} rows: about {MIN_STEPS} steps are needed"
    per_epoch, epochs = steps_per_epoch(rows), choose_epochs(rows)
    count = f"{rows} training rows: {per_epoch} steps per epoch, {per_epoch * epochs} in total"
    return f"{count}; add rows: about {MIN_STEPS} are needed" if per_epoch * epochs < MIN_STEPS else count
