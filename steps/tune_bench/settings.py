"""Settings and result of the tune_bench step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from steps.tune.settings import TrainingOptions

UNRELATED_FIELDS = {"epochs", "max_steps", "learning_rate", "alpha", "beta", "seed", "work", "seconds"}
"""Settings that do not change the speed of a training."""


class Settings(TrainingOptions):
    """Measure the speed and the memory of the tune step on this machine, for each compute dtype.

    The rows are a sample of ``WORK/dataset/train.parquet``; without that file they are generated.
    """

    work: Path
    """Work directory, with the rows of the download step."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id or directory of the base model; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    nodes: int = Field(1, ge=1, le=1000)
    """Nodes that train together (KAITO `resource.count`); on one machine, processes."""
    seconds: float = Field(30, gt=0, le=3600)
    """Seconds of training that are measured, for all dtypes together; loading comes on top."""


@dataclass(frozen=True)
class Speed:
    """Speed and memory of a training in one dtype."""

    dtype: str
    """Compute dtype."""
    tokens_per_second: float
    """Tokens per second, without padding."""
    rows_per_second: float
    """Rows per second."""
    memory_gib: float
    """Peak memory of one process: on a GPU what its tensors use, on a CPU the resident size."""
    steps: int
    """Measured optimizer steps, without the first one, which also prepares kernels and caches."""


@dataclass(frozen=True)
class Result:
    """Speed of the training by dtype."""

    device: str
    """Device of the training, with its GPU model or number of threads."""
    dtype: str
    """Compute dtype that a tuning uses with these settings."""
    probe: str
    """On a CPU, the time of one layer that the tune step chooses the dtype by."""
    speeds: list[Speed]
    """Measurements by dtype."""
    tokens_per_row: float
    """Mean tokens of the measured rows, after truncation."""
    rows: int
    """Rows of the dataset; 0 if they were generated."""
    global_batch_size: int
    """Rows of one optimizer step."""
