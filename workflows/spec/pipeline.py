"""The ``pipeline:`` block: what KAITO has no word for. A Workspace without it stays a valid KAITO Workspace."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from steps.row_formats import Column
from workflows.runner.duration import seconds
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


Duration = Annotated[str, AfterValidator(_duration)]
Quantity = Annotated[str, AfterValidator(_quantity)]
Zone = Annotated[str, Field(pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class PipelineData(Fields):
    """How the rows are fetched and split."""

    eval_split: float = Field(0.1, ge=0, le=0.5)
    """Share of the rows held out for the evaluation; 0 holds none out, and nothing is evaluated."""
    columns: dict[Column, str] = Field({})
    """What the files call a column, where not as the formats do: ``{prompt: question, completion: answer}``."""
    allow_private_hosts: bool = False
    """Whether URLs may name hosts of private networks, this machine, or services of the cluster."""


class PipelineEvaluation(Fields):
    """How the adapter is compared with its base model, and when it may go on."""

    samples: int = Field(5, ge=0, le=100)
    """Held-out rows that both models answer, side by side in the report."""
    max_new_tokens: int = Field(64, ge=1, le=4096)
    """Tokens of such an answer."""
    max_loss_ratio: float = Field(1.0, gt=0)
    """The gate: the adapter's loss on the held-out rows must be below this share of the base model's."""


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


class PipelineStorage(Fields):
    """The volume that the steps of a run share."""

    size: Quantity = "100Gi"
    """Room for data, checkpoints, adapter and image."""
    storage_class_name: str = ""
    """Empty: the cluster's default class."""


class PipelineTune(Fields):
    """Bounds of the tuning step."""

    timeout: Duration = "24h"
    """Of each attempt."""
    retries: int = Field(3, ge=0, le=100)
    """After a failure; each goes on from the last checkpoint."""
    preemptions: int = Field(10, ge=0, le=1000)
    """How often, besides, a node that was lost or taken back (spot) is made up for in the same way."""


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
    nodes: PipelineNodes = PipelineNodes()
    schedule: PipelineSchedule | None = None
    """When it is tuned anew (``argotune compile --as cron``)."""
    approval: bool = False
    """Whether somebody must answer YES before an adapter that was evaluated is packaged and served."""
    time_limit: Duration | None = None
    """Of the whole run, waiting for nodes and approval included; the exit handler still releases and reports."""
