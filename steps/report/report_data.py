"""The data of a run that the report shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from steps.report.gpu_usage import GpuUsage
from steps.serving.benchmark_result import Benchmark

STEPS = (
    "claims", "preflight", "dryrun", "provision", "fetch", "download", "check", "tune", "evaluate", "prune",
    "promote", "package", "rollout",
)  # fmt: skip
MEMORY = ("memory_gib", "memory_reserved_gib")


@dataclass(frozen=True)
class Step:
    """The record of a finished step."""

    name: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    started: datetime | None
    seconds: float | None


@dataclass(frozen=True)
class Answer:
    """A question with its reference answer and the answers of the models."""

    question: str
    reference: str
    base: str
    adapter: str
    previous: str = ""
    """Answer of the adapter that was live before the run."""


@dataclass(frozen=True)
class Regression:
    """A held-out row on which the adapter has a higher loss than another model."""

    question: str
    base_loss: float | None
    adapter_loss: float | None
    previous_loss: float | None


@dataclass(frozen=True)
class Rule:
    """A condition of the gate and its result."""

    name: str
    required: str
    measured: float | None
    passed: bool


@dataclass(frozen=True)
class Evaluation:
    """Base model and adapter on the held-out rows."""

    verdict: str = ""
    reason: str = ""
    """Rules that failed."""
    rules: tuple[Rule, ...] = ()
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Scores of the answers and of lm-eval's tasks, by name and model; empty if there are none."""
    base_loss: float | None = None
    adapter_loss: float | None = None
    previous_loss: float | None = None
    """Loss of the adapter that was live before the run."""
    base_perplexity: float | None = None
    adapter_perplexity: float | None = None
    rows: float | None = None
    max_loss_ratio: float | None = None
    ratio_low: float | None = None
    """Lower end of the confidence interval of the loss ratio, over the rows."""
    ratio_high: float | None = None
    confidence: float | None = None
    answers: tuple[Answer, ...] = ()
    regressions: tuple[Regression, ...] = ()
    regressions_against_previous: tuple[Regression, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Loss of the adapter divided by that of the base model."""
        if self.base_loss is None or self.adapter_loss is None or self.base_loss <= 0:
            return None
        return self.adapter_loss / self.base_loss


@dataclass(frozen=True)
class TrialRun:
    """Files of a trial of a search."""

    name: str
    values: Mapping[str, str]
    """Settings of the search, by flag name."""
    curve: tuple[Mapping[str, float], ...] = ()
    share: float = 1
    """Share of the training that is done (successive halving)."""
    device: str = ""
    """Empty if its training did not finish."""
    base_loss: float | None = None
    adapter_loss: float | None = None
    verdict: str = ""
    """Empty if it was not evaluated."""
    paid_seconds: float = 0
    """Its part of the time of the node, over all attempts and rungs."""

    @property
    def seconds(self) -> float | None:
        """Seconds of training, over all attempts and rungs."""
        return self.curve[-1].get("seconds") if self.curve else None


@dataclass(frozen=True)
class Failure:
    """A failed node (an entry of Argo's ``workflow.failures``)."""

    step: str = ""
    phase: str = ""
    message: str = ""
    when: str = ""


@dataclass(frozen=True)
class Setting:
    """A value of the plan."""

    path: str
    value: str
    origin: str


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows."""

    status: str
    steps: Mapping[str, Step]
    curve: tuple[Mapping[str, float], ...]
    """Logged values of training by step, in order."""
    tracked: str
    """Experiment tracker and run (``MLflow, run 3f2a...``); empty without one."""
    evaluation: Evaluation
    failures: tuple[Failure, ...]
    settings: tuple[Setting, ...]
    manifest: Mapping[str, Any]
    versions: Mapping[str, str]
    warnings: tuple[str, ...]
    """Missing and unreadable files."""
    gpu: GpuUsage | None = None
    """GPU time; None if no GPU step has started."""
    budget_hours: float = 0
    """Limit of the GPU time in hours; 0: none."""
    trials: tuple[TrialRun, ...] = ()
    """Trials of a search, in the order of the plan."""
    benchmark: Benchmark | None = None
    """Result of ``argotune bench``; None without one."""

    @property
    def name(self) -> str:
        """Name of the Workspace."""
        planned = next((s.value for s in self.settings if s.path == "name"), "")
        return planned or self.value("rollout", "name") or "unnamed run"

    @property
    def busy_seconds(self) -> float | None:
        """Seconds in which at least one step was running."""
        spans = sorted(
            (step.started, step.started + timedelta(seconds=step.seconds))
            for step in self.steps.values()
            if step.started is not None and step.seconds is not None
        )
        total, until = timedelta(), None
        for start, end in spans:
            begin = start if until is None else max(start, until)
            total += max(end - begin, timedelta())
            until = end if until is None else max(until, end)
        return total.total_seconds() if spans else None

    @property
    def peak_memory_gib(self) -> float | None:
        """Peak memory of training."""
        return max((point[key] for point in self.curve for key in MEMORY if key in point), default=None)

    def value(self, step: str, key: str) -> str:
        """Return a result of a step, or else a setting, as text; "" if there is none."""
        record = self.steps.get(step)
        return (text(record.result.get(key)) or text(record.settings.get(key))) if record else ""

    def setting(self, path: str) -> str:
        """Return a value of the plan as text; "" if there is none."""
        return next((s.value for s in self.settings if s.path == path), "")


def text(value: Any) -> str:
    """Return text unchanged, "" for None, and JSON for other values."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def records(value: Any) -> list[Mapping[str, Any]]:
    """Return the mappings in a list; an empty list for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def record(value: Any) -> Mapping[str, Any]:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, dict) else {}
