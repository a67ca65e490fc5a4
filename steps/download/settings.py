"""Settings and result of the download step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from steps.data import file_weights
from steps.data.locations.url_list import Urls
from steps.data.row_formats import Column, Format
from steps.runtime.options import OptionalFolder, Options, Pattern, Seed

Weight = Annotated[float, Field(ge=0, le=file_weights.MAX_WEIGHT)]


class InputOptions(Options):
    """One of several inputs that are mixed (``pipeline.data.inputs``), in addition to KAITO's ``tuning.input``."""

    name: Annotated[str, Pattern(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", "a name of lower-case letters and digits")]
    """Name of the input in messages and in the report."""
    urls: Urls = []
    """Data files, as in `tuning.input.urls`."""
    image: str = ""
    """OCI image with data files under `/data`; instead of urls."""
    pattern: str = ""
    """Glob pattern of the files to read in its folder or image."""
    columns: dict[Column, str] = {}
    """Column names in its files where they differ from the format's."""
    weight: Weight = 1.0
    """Number of times its rows are trained on in an epoch; 0.5: half of its rows, 0: only held-out rows."""


class DataOptions(Options):
    """Options for reading and splitting the rows (``pipeline.data``)."""

    eval_split: float = Field(0.1, ge=0, le=0.5)
    """Fraction of the rows held out for the evaluation; 0: hold out none, and skip the evaluation. KAITO's
    `train_test_split` is 1 minus this."""
    columns: dict[Column, str] = {}
    """Column names in the files where they differ from the format's, as JSON:
    `{"prompt": "question", "completion": "answer"}`."""
    pattern: str = ""
    """Glob pattern of the files to read in a folder or image: `train/*.jsonl`, `**/*.parquet`, `{a,b}.csv`. Default:
    all data files."""
    weights: dict[str, Weight] = {}
    """Number of times the rows of a file are trained on in an epoch (default 1), as JSON: `{"chat.parquet": 2,
    "code.parquet": 0.5}` (half of its rows, sampled by the seed). A file is named by the end of its URL or path.
    Rows are held out before weights apply."""
    allow_private_hosts: bool = False
    """Allow URLs and object store endpoints of private networks, this machine, and services of the cluster; never
    link-local addresses and cloud metadata services."""


class DatasetOptions(DataOptions):
    """Source and order of the rows."""

    urls: Urls = []
    """Data files (KAITO `input.urls`) by `https://`, `hf://datasets/`, `s3://`, `gs://`, `abfss://` or `az://`; except
    with https also folders and patterns. `#sha256=<hex>` after a file is checked."""
    image: str = ""
    """OCI image with data files under `/data` (KAITO `input.image`); instead of urls."""
    shuffle: bool = True
    """Shuffle before splitting (KAITO `shuffle_dataset`); otherwise the last rows are held out."""
    seed: Seed = 42
    """Seed of the shuffle (KAITO `shuffle_seed`)."""


class NamedInput(InputOptions):
    """One of several inputs, as the step reads it."""

    source: OptionalFolder = None
    """Folder with data files (a mounted volume), one file, or a glob pattern; instead of urls."""


class Settings(DatasetOptions):
    """Fetch the data to tune on, check it, and split it into rows to train on and rows to evaluate on."""

    work: Path
    """Folder that all steps of a run share."""
    source: OptionalFolder = None
    """Folder with data files, one file, or a glob pattern (KAITO `input.volumeSource`, mounted); instead of urls."""
    sample: bool = False
    """Read only the start of remote files, for a preview: the first rows of parquet, JSON Lines and CSV files, without
    weights; files of other formats are read whole."""
    inputs: list[NamedInput] = []
    """JSON list of further inputs, each with `name`, one of `urls`, `source` and `image`, and optionally `pattern`,
    `columns` and `weight`."""
    objective: Literal["sft", "dpo"] = "sft"
    """Purpose of the rows: dpo learns from pairs of answers, and rejects other data."""


@dataclass(frozen=True)
class Result:
    """Content of `dataset/`."""

    rows: int
    """Rows to train on, in `train.parquet`, repeated by the weight of their file."""
    eval_rows: int
    """Held-out rows, in `eval.parquet`; without any, the file is absent."""
    data_digest: str
    """Digest of the content, order and weights of the files and of the split, independent of their location."""
    data_format: Format
    """Format of the files; `messages` if inputs differ. `train.parquet` and `eval.parquet` have `messages`; for
    `preference` data also `rejected`, one message that answers worse than the last of `messages`; for `text` only
    `text`."""
