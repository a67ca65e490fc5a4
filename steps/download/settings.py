"""Settings and result of the download step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from steps.data.row_formats import Format
from steps.runtime import entrypoint

if TYPE_CHECKING:
    pass


@entrypoint.settings
class Settings:
    """Fetch the data to tune on, check it, and split it into rows to train on and rows to evaluate on."""

    work: Path
    """Folder that all steps of a run share."""
    urls: list[str] = Field(default_factory=list)
    """Parquet files by http or https (KAITO `input.urls`); `#sha256=<hex>` at the end is checked."""
    source: entrypoint.OptionalFolder = None
    """Folder with parquet files, or one such file (KAITO `input.volumeSource`, mounted); instead of urls."""
    image: str = ""
    """OCI image with parquet files under `/data` (KAITO `input.image`); instead of urls."""
    columns: dict[str, str] = Field(default_factory=dict)
    """JSON map of columns that the files call otherwise, for example `{"prompt": "question"}` (row_formats.py)."""
    weights: dict[str, float] = Field(default_factory=dict)
    """JSON map of how many times the rows of a file count, by its name (file_weights.py): `{"a.parquet": 2}`."""
    objective: Literal["sft", "dpo"] = "sft"
    """What the rows are for: dpo learns from pairs of answers, and other data is refused."""
    eval_split: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows that is held out for evaluation; KAITO's `train_test_split` is 1 minus this."""
    shuffle: bool = True
    """Shuffle before splitting (KAITO `shuffle_dataset`); otherwise the last rows are held out."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of the shuffle (KAITO `shuffle_seed`)."""
    allow_private_hosts: bool = False
    """Allow addresses of this machine and of private networks."""


@dataclass(frozen=True)
class Result:
    """What is in `dataset/` now."""

    rows: int
    """Rows to train on, in `train.parquet`; each as often as the weight of its file says."""
    eval_rows: int
    """Rows held out, in `eval.parquet`; that file is absent when there are none."""
    data_digest: str
    """Of the content of the files given, in their order, of their weights and of the split; where they came from does
    not count."""
    data_format: Format
    """What the files given had. `train.parquet` and `eval.parquet` have `messages`; of `preference` data `rejected`
    too, one message that answers worse than the last of `messages`; of `text` they have `text` alone."""
