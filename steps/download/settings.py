"""Settings and result of the download step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from steps.data import file_weights
from steps.data.row_formats import Column, Format
from steps.runtime.options import OptionalFolder, Options, Seed

Weight = Annotated[float, Field(ge=0, le=file_weights.MAX_WEIGHT)]


class DataOptions(Options):
    """How the rows are read and split (``pipeline.data``)."""

    eval_split: float = Field(0.1, ge=0, le=0.5)
    """Fraction of the rows held out for the evaluation; 0: hold out none, and skip the evaluation. KAITO's
    `train_test_split` is 1 minus this."""
    columns: dict[Column, str] = {}
    """Column names in the files where they differ from the format's, as JSON:
    `{"prompt": "question", "completion": "answer"}`."""
    weights: dict[str, Weight] = {}
    """How many times the rows of a file are trained on in an epoch (default 1), as JSON: `{"chat.parquet": 2,
    "code.parquet": 0.5}` (half of its rows, sampled by the seed). A file is named by the end of its URL or path.
    Rows are held out before weights apply."""
    allow_private_hosts: bool = False
    """Allow URLs of private networks, this machine, and services of the cluster."""


class DatasetOptions(DataOptions):
    """Where the rows come from, and their order."""

    urls: list[str] = []
    """Parquet files by http or https (KAITO `input.urls`); `#sha256=<hex>` at the end is checked."""
    image: str = ""
    """OCI image with parquet files under `/data` (KAITO `input.image`); instead of urls."""
    shuffle: bool = True
    """Shuffle before splitting (KAITO `shuffle_dataset`); otherwise the last rows are held out."""
    seed: Seed = 42
    """Seed of the shuffle (KAITO `shuffle_seed`)."""


class Settings(DatasetOptions):
    """Fetch the data to tune on, check it, and split it into rows to train on and rows to evaluate on."""

    work: Path
    """Folder that all steps of a run share."""
    source: OptionalFolder = None
    """Folder with parquet files, or one such file (KAITO `input.volumeSource`, mounted); instead of urls."""
    objective: Literal["sft", "dpo"] = "sft"
    """Purpose of the rows: dpo learns from pairs of answers, and rejects other data."""


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
