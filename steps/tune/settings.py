"""Options, settings and result of the tune step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from steps.models.sharding import Sharding
from steps.runtime.gpu_time import PARAMETER, BudgetOptions
from steps.runtime.options import OptionalFolder, Options, Seed
from steps.tune.tracking_tools import ReportTo

NON_ADAPTER_FIELDS = {
    *("work", "dataset", "report_to", "run_name", "tasks", "budget_hours", "stop_after"),
    *("processes", "sharding", "nodes", "preemptions", "job_kind"),
}
"""Settings that do not change the training: its checkpoints are those of any value."""
SEARCHABLE = ("epochs", "max_steps", "learning_rate", "batch_size", "rank", "alpha", "dropout", "beta", "seed")
"""Numbers that ``pipeline.search`` can vary."""


def _tracking_uri(text: str) -> str:
    try:
        address = urlsplit(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a URL such as https://mlflow.example.com") from None
    if address.username or address.password:
        raise ValueError("a URL must hold no credentials: put them into a Secret and name it as tracking.secret")
    if text and ((not address.scheme and text != "databricks") or re.search(r"\s", text)):
        raise ValueError(f"{text!r} is not a URL such as https://mlflow.example.com")
    return text


TrackingUri = Annotated[str, AfterValidator(_tracking_uri)]


class TrackingOptions(Options):
    """Destination of the metrics, in addition to the run's report."""

    report_to: ReportTo = "none"
    """Tracking tool that also gets the metrics: `mlflow` or `wandb` (KAITO `TrainingArguments.report_to`); address and
    credentials come from the environment, as the tool reads it."""


JobKind = Literal["auto", "jobset", "job"]


class NodeJobOptions(Options):
    """Kind of the object with the pods of several nodes."""

    job_kind: JobKind = "auto"
    """Cluster, with `resource.count` of 2 or more: object that has the pods of the other nodes. jobset: a JobSet,
    which must be installed; job: an Indexed Job; auto: a JobSet where it is installed, or else a Job."""


class TuneOptions(NodeJobOptions):
    """Objective and parallelism of the training (``pipeline.tune``)."""

    objective: Literal["sft", "dpo"] = "sft"
    """sft: learn the answers; dpo: learn to prefer the chosen answer of each pair to the rejected one. The gate still
    checks the loss on the chosen answers, which dpo may raise: set maxLossRatio accordingly."""
    beta: float = Field(0.1, gt=0, le=100)
    """DPO beta: penalty for moving away from the base model; a higher value keeps the adapter nearer to it."""
    processes: int = Field(0, ge=0, le=64)
    """Processes that train together, each on one GPU with its own rows; 0: one for each GPU of the node; 1: one
    process, with the layers spread over the GPUs."""
    sharding: Sharding = "auto"
    """Distribution of the base model. none: each process has a full copy; full: each has a shard of its
    weights, gathered layer by layer (FSDP); auto: a full copy, or a shard where a GPU can't hold it."""


class SubmittedOptions(Options):
    """Numbers that can be set when a Workflow is submitted, also in the form of Argo's UI."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {
        "epochs": "epochs",
        "max_steps": "max-steps",
        "learning_rate": "learning-rate",
        "batch_size": "batch-size",
        "rank": "rank",
        "alpha": "alpha",
    }
    epochs: float = Field(3, gt=0, le=10_000)
    """Passes over the data."""
    max_steps: int = Field(-1, ge=-1, le=100_000_000)
    """Maximum number of optimizer steps; -1: no limit other than epochs."""
    learning_rate: float = Field(2e-4, gt=0, le=1)
    """Peak learning rate."""
    batch_size: int = Field(4, ge=1, le=65_536)
    """Rows of one step on each device."""
    rank: int = Field(16, ge=1, le=4096)
    """LoRA rank r."""
    alpha: float = Field(32, gt=0, le=100_000)
    """LoRA alpha."""


class TrainingOptions(TuneOptions, SubmittedOptions):
    """All that shapes the adapter. The maps take the keys of KAITO's ``training_config.yaml`` sections."""

    method: Literal["lora", "qlora"] = "qlora"
    """qlora: the base model is quantized to 4 bits; lora: it is not."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """LoRA dropout."""
    target_modules: list[str] = []
    """Linear layers that get an adapter; empty: those of the preset, or all."""
    max_length: int = Field(1024, ge=1, le=10_000_000)
    """Maximum tokens per row; longer rows are truncated."""
    seed: Seed = 42
    """Seed of the order of the rows, the adapter's first weights and dropout."""
    training_arguments: dict[str, Any] = {}
    """More arguments of trl's SFTConfig."""
    lora_config: dict[str, Any] = {}
    """More arguments of peft's LoraConfig."""
    quantization_config: dict[str, Any] = {}
    """Arguments of transformers' BitsAndBytesConfig."""
    # pydantic reserves the name without the underscore; priority 1 lets the plan's alias generator write modelConfig.
    model_config_: dict[str, Any] = Field({}, alias="model_config", alias_priority=1)
    """Arguments for loading the base model: torch_dtype, chat_template (Jinja text)."""


class Settings(TrainingOptions, TrackingOptions, BudgetOptions):
    """Train an adapter on ``train.parquet`` of the dataset and write it to ``WORK/adapter``."""

    PARAMETERS: ClassVar[Mapping[str, str]] = {**SubmittedOptions.PARAMETERS, "budget_hours": PARAMETER}
    work: Path
    """Work folder, shared by all steps."""
    dataset: OptionalFolder = None
    """Folder of the rows; by default ``WORK/dataset``."""
    preset: str = ""
    """Preset of the base model."""
    model: str = ""
    """Hugging Face id of the base model, or a folder; by default the preset's."""
    revision: str = ""
    """Commit, branch or tag of the base model."""
    data_digest: str = ""
    """Digest of the rows, from the download step."""
    run_name: str = ""
    """Name of the run in the tracking tool."""
    stop_after: float = Field(1, gt=0, le=1)
    """Share of the training after which to stop and write the adapter; a start with a larger share continues."""
    tasks: list[str] = []
    """lm-eval tasks that the evaluation will run: missing requirements are reported before the training starts."""
    nodes: int = Field(1, ge=1, le=1000)
    """Nodes that train together (KAITO `resource.count`). They split the batch of one node, so the training is the
    same, only faster. On a cluster each has a pod; on one machine, processes."""
    preemptions: int = Field(10, ge=0, le=1000)
    """Several nodes: restarts from the last checkpoint after a node was lost."""


@dataclass(frozen=True)
class Result:
    """The adapter and how its training went."""

    adapter_digest: str
    """Digest of the adapter's files."""
    train_loss: float
    """Mean over all steps."""
    steps: int
    """Number of optimizer steps."""
    device: str
    """Device that trained, with its GPU model."""
    tokens_per_second: float
    """Training throughput, without padding."""
    load_seconds: float = field(default=0.0, compare=False)
    """Seconds of all attempts of this step until the training: image pull, imports, base model."""
    train_seconds: float = field(default=0.0, compare=False)
    """Seconds of all attempts of this step that trained."""
