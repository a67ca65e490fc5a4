"""The ``pipeline:`` block: what KAITO has no word for. A Workspace without it stays a valid KAITO Workspace."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from steps.data import file_weights
from steps.data.row_formats import Column
from steps.models.sharding import Sharding
from steps.tune.tracking_tools import ReportTo
from workflows.argo.duration import seconds
from workflows.spec.fields import Fields
from workflows.spec.schedule import PipelineSchedule

_DURATION = re.compile(r"([0-9]+h)?([0-9]+m)?([0-9]+s)?")
_QUANTITY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")


def whole_seconds(duration: str) -> int:
    """Length of a duration of a Workspace, like ``90s``, ``10m`` or ``1h30m``: some of what Go takes for one.

    Raises:
        ValueError: when it is none, or of no length.
    """
    total = int(seconds(duration)) if duration and _DURATION.fullmatch(duration) else 0
    if not total:
        raise ValueError(f"{duration!r} is no duration; write hours, minutes and seconds like 1h30m, 10m or 90s")
    return total


def _duration(text: str) -> str:
    whole_seconds(text)
    return text


def _quantity(text: str) -> str:
    if not _QUANTITY.fullmatch(text):
        raise ValueError(f"{text!r} is no size; write a number and a unit, like 50Gi")
    return text


def _tracking_uri(text: str) -> str:
    try:
        address = urlsplit(text)
    except ValueError:
        raise ValueError(f"{text!r} is no address; write one like https://mlflow.example.com") from None
    if address.username or address.password:
        raise ValueError("an address must hold no credentials: put them into a Secret and name it as tracking.secret")
    if text and ((not address.scheme and text != "databricks") or re.search(r"\s", text)):
        raise ValueError(f"{text!r} is no address; write one like https://mlflow.example.com")
    return text


Duration = Annotated[str, AfterValidator(_duration)]
TrackingUri = Annotated[str, AfterValidator(_tracking_uri)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Weight = Annotated[float, Field(ge=0, le=file_weights.MAX_WEIGHT)]
Zone = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class PipelineData(Fields):
    """How the rows are fetched and split."""

    eval_split: float = Field(0.1, ge=0, le=0.5)
    """Share of the rows held out for the evaluation; 0 holds none out, and nothing is evaluated."""
    columns: dict[Column, str] = Field({})
    """What the files call a column, where not as the formats do: ``{prompt: question, completion: answer}``."""
    weights: dict[str, Weight] = Field({})
    """How many times the rows of a file are trained on in an epoch, where not once: ``{chat.parquet: 2, code.parquet:
    0.5}`` (half of its rows, drawn by the seed). A file is named by the end of its address or path. Held-out rows are
    taken before, from all files, and count once."""
    allow_private_hosts: bool = False
    """Whether URLs may name hosts of private networks, this machine, or services of the cluster."""


class PipelineEvaluation(Fields):
    """How the adapter is compared with its base model, and the gate: all that it asks must hold for it to go on."""

    samples: int = Field(5, ge=0, le=1000)
    """Held-out rows that the models answer, side by side in the report; their scores are of these answers."""
    max_new_tokens: int = Field(64, ge=1, le=4096)
    """Tokens of such an answer; for the scores to mean something, as many as the answers wanted have."""
    tasks: list[str] = Field([])
    """Tasks of EleutherAI's lm-evaluation-harness that the models are asked too, like ``hellaswag`` or ``ifeval``:
    what the base can do, and an adapter may have lost. One of your own is the path of its YAML; on a cluster below
    ``/mnt/models``, the volume of the base models. Wants ``argotune[lm-eval]`` where it runs."""
    task_limit: int = Field(0, ge=0)
    """Samples of each task; 0: all, which may take hours."""
    max_loss_ratio: float = Field(1.0, gt=0)
    """The adapter's loss on the held-out rows must be below this share of the base model's."""
    confident: bool = False
    """Whether the upper end of the share's 95 % bootstrap interval must be below it too, not only the share."""
    min_exact_match: float | None = Field(None, ge=0, le=1)
    """Share of the adapter's answers that must be the row's own, but for case, punctuation and articles (SQuAD)."""
    min_rouge_l: float | None = Field(None, ge=0, le=1)
    """ROUGE-L (F-measure) that the adapter's answers must reach on average."""
    max_regressions: float | None = Field(None, ge=0, le=1)
    """Share of the held-out rows, at most, on which the adapter's loss may be higher than the base model's."""
    min_task_scores: dict[str, float] = Field({})
    """What the adapter must reach in a task: ``{hellaswag: 0.4}`` by its first metric, ``{hellaswag/acc_norm: 0.5}``
    by this one."""
    better_than_previous: bool = True
    """Whether, with a schedule, the adapter's loss must be below that of the adapter in service."""


class PipelineRollout(Fields):
    """How the served adapter is proven."""

    question: str = Field("What can you help me with?", min_length=1)
    """Asked once the server is up; the run shows the answers of base model and adapter."""
    port: int = Field(0, ge=0, le=65535)
    """Port on one machine; 0 takes the first free one. A cluster's Service has KAITO's ports."""
    deadline: Duration = "15m"
    """How long the server may take until it answers."""
    replicas: int = Field(1, ge=1, le=100)
    """Servers behind a cluster's Service; an InferenceSet says it as ``spec.replicas``."""
    max_replicas: int = Field(0, ge=0, le=1000)
    """Servers at most, added on a cluster while requests wait; 0 keeps ``replicas``."""
    prometheus: str = ""
    """Address of a Prometheus that KEDA asks how many requests wait; empty: an HPA asks the cluster's metrics API."""
    canary: int = Field(0, ge=0, le=90)
    """Percent of a cluster's requests that a new adapter gets until ``argotune promote``; 0: all, once it answers."""
    gateway: str = ""
    """Gateway (``NAMESPACE/NAME``) that splits requests exactly; empty: the number of servers splits them."""
    hot_load: bool = True
    """Whether a cluster's servers take other adapters while they run; false: each adapter gets servers of its own,
    which mount its image where the cluster has image volumes."""


class PipelineStorage(Fields):
    """The volume that the steps of a run share."""

    size: Quantity = "100Gi"
    """Room for data, checkpoints, adapter and image."""
    storage_class_name: str = ""
    """Empty: the cluster's default class."""


class PipelineTune(Fields):
    """What the tuning step learns, and its bounds."""

    objective: Literal["sft", "dpo"] = "sft"
    """sft: learn the answers; dpo: learn to prefer the chosen answer of each pair to the rejected one. The gate asks
    for the loss on the chosen answers all the same, which dpo may raise: maxLossRatio says how much is allowed."""
    beta: float = Field(0.1, gt=0)
    """Of dpo: how much it costs to move away from the base model; more keeps the adapter nearer to it."""
    processes: int = Field(0, ge=0, le=64)
    """That train together, each on a GPU, with ``per_device_train_batch_size`` rows of its own; 0: one for each GPU of
    the node; 1: one process, with the layers spread over the GPUs."""
    sharding: Sharding = "auto"
    """How they hold the base model. none: each all of it; full: each a share of its weights, and those of a layer are
    gathered when it computes (FSDP); auto: all of it, or a share where a GPU can't hold it, or else, one process with
    the layers spread over the GPUs."""
    timeout: Duration = "24h"
    """Of each attempt."""
    retries: int = Field(3, ge=0, le=100)
    """After a failure; each goes on from the last checkpoint."""
    preemptions: int = Field(10, ge=0, le=1000)
    """How often, besides, a node that was lost or taken back (spot) is made up for in the same way."""


class PipelineTracking(Fields):
    """Where the metrics of the training go besides the run's report."""

    report_to: ReportTo = "none"
    """``mlflow`` or ``wandb`` (Weights & Biases); ``TrainingArguments.report_to`` says it too."""
    uri: TrackingUri = ""
    """Address of the server; empty: that of the environment, or of the Secret, and W&B's own."""
    project: str = ""
    """MLflow's experiment, W&B's project; empty: as the environment, the Secret or the tool says."""
    secret: str = ""
    """Secret whose keys are the tool's environment variables, such as MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, MLFLOW_TRACKING_TOKEN, or WANDB_API_KEY."""


class PipelineNodes(Fields):
    """Which other nodes would do, and how long they belong to the run. The site profile says who makes them."""

    fallback_instance_types: list[str] = Field(default_factory=list)
    """Sizes to take, in this order, where ``resource.instanceType`` is not to be had."""
    spot: bool = False
    """Whether unused capacity is tried first: cheaper, and the cloud may take it back; then the training goes on, from
    its last checkpoint, on the next node. Where there is none, a regular machine is taken."""
    zones: list[Zone] = Field(default_factory=list)
    """Zones to try, in this order, like 1 or eastus-1; empty: wherever the region has room."""
    lease: Duration = "26h"
    """After so long, what was made for the run belongs to nobody any more (``argotune gc``)."""


class Pipeline(Fields):
    """What KAITO has no word for; every part is optional."""

    data: PipelineData = PipelineData()
    evaluation: PipelineEvaluation = PipelineEvaluation()
    rollout: PipelineRollout = PipelineRollout()
    storage: PipelineStorage = PipelineStorage()
    tune: PipelineTune = PipelineTune()
    tracking: PipelineTracking = PipelineTracking()
    nodes: PipelineNodes = PipelineNodes()
    schedule: PipelineSchedule | None = None
    """When it is tuned anew (``argotune compile --as cron``)."""
    approval: bool = False
    """Whether somebody must answer YES before an adapter that was evaluated is packaged and served."""
    time_limit: Duration | None = None
    """Of the whole run, waiting for nodes and approval included; the exit handler still releases and reports."""
