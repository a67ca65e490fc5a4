"""What a run left behind, read for the report. Whatever is missing or damaged is remarked upon and never fails."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from steps.runtime.redaction import redact
from steps.tune.tracking_tools import TOOLS

STEPS = ("preflight", "provision", "download", "check", "tune", "evaluate", "promote", "package", "rollout")
MEMORY = ("memory_gib", "memory_reserved_gib")
SCORES = {"exact_match": "Exact match", "rouge_l": "ROUGE-L"}
VERSIONS = ("argotune", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "vllm")


@dataclass(frozen=True)
class Step:
    """A finished step, as it wrote itself down."""

    name: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    started: datetime | None
    seconds: float | None


@dataclass(frozen=True)
class Answer:
    """One question, what should be answered, and what was."""

    question: str
    reference: str
    base: str
    adapter: str
    previous: str = ""
    """Of the adapter that was in service."""


@dataclass(frozen=True)
class Regression:
    """A held-out row on which the adapter is worse than another."""

    question: str
    base_loss: float | None
    adapter_loss: float | None
    previous_loss: float | None


@dataclass(frozen=True)
class Rule:
    """What the gate asked, and what came of it."""

    name: str
    wanted: str
    measured: float | None
    ok: bool


@dataclass(frozen=True)
class Evaluation:
    """Base against adapter on the held-out rows."""

    verdict: str = ""
    reason: str = ""
    """Rules that said no."""
    rules: tuple[Rule, ...] = ()
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Of the answers and of lm-eval's tasks, by name of the score and model; none where nothing was asked."""
    base_loss: float | None = None
    adapter_loss: float | None = None
    previous_loss: float | None = None
    """Of the adapter that was in service."""
    base_perplexity: float | None = None
    adapter_perplexity: float | None = None
    rows: float | None = None
    max_loss_ratio: float | None = None
    low: float | None = None
    """The ratio lies between ``low`` and ``high`` with ``level`` of confidence, over the rows."""
    high: float | None = None
    level: float | None = None
    answers: tuple[Answer, ...] = ()
    regressions: tuple[Regression, ...] = ()
    regressions_against_previous: tuple[Regression, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Loss of the adapter as a share of the base's."""
        if self.base_loss is None or self.adapter_loss is None or self.base_loss <= 0:
            return None
        return self.adapter_loss / self.base_loss


@dataclass(frozen=True)
class Failure:
    """One node that failed (an entry of Argo's ``workflow.failures``)."""

    step: str
    phase: str
    message: str
    when: str


@dataclass(frozen=True)
class Setting:
    """One value of the plan."""

    path: str
    value: str
    origin: str


@dataclass(frozen=True)
class ReportData:
    """Everything the report shows."""

    status: str
    steps: Mapping[str, Step]
    curve: tuple[Mapping[str, float], ...]
    """The logged points of training, one a step, in order."""
    tracked: str
    """Where the metrics went besides: ``MLflow, run 3f2a...``; empty when nowhere."""
    evaluation: Evaluation
    failures: tuple[Failure, ...]
    settings: tuple[Setting, ...]
    manifest: Mapping[str, Any]
    versions: Mapping[str, str]
    remarks: tuple[str, ...]
    """What could not be read."""

    @property
    def name(self) -> str:
        """Name of the Workspace."""
        planned = next((s.value for s in self.settings if s.path == "name"), "")
        return planned or self.of("rollout", "name") or "unnamed run"

    @property
    def busy_seconds(self) -> float | None:
        """Seconds in which at least one step was at work."""
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
        """The most memory that training took."""
        return max((point[key] for point in self.curve for key in MEMORY if key in point), default=None)

    def of(self, step: str, key: str) -> str:
        """Text of a result, or else of a setting, of a step; empty when it is not there."""
        there = self.steps.get(step)
        return (text(there.result.get(key)) or text(there.settings.get(key))) if there else ""

    def setting(self, path: str) -> str:
        """Text of a value of the plan; empty when it is not there."""
        return next((s.value for s in self.settings if s.path == path), "")


@dataclass
class _Reader:
    """Reads one source after the other, and remembers what it could not read."""

    work: Path
    remarks: list[str] = field(default_factory=list)

    def json(self, content: str, what: str) -> Any:
        try:
            return redact(json.loads(content))
        except (ValueError, RecursionError) as error:
            self.remarks.append(f"{what} could not be read: {error}")
            return None

    def content(self, path: str, *, expected: bool = True) -> str | None:
        try:
            return (self.work / path).read_bytes().decode(errors="replace")
        except FileNotFoundError:
            if expected:
                self.remarks.append(f"there is no {path}")
        except OSError as error:
            self.remarks.append(f"{path} could not be read: {error.strerror}")
        return None


def read(work: Path, *, plan: str, status: str, failures: str) -> ReportData:
    """Gather what the run left in ``work`` and what the workflow tells of itself. Raises nothing."""
    reader = _Reader(work)
    steps = _steps(reader)
    return ReportData(
        status=status if status and "{{" not in status else "unknown",
        steps=steps,
        curve=_curve(reader, expected="tune" in steps),
        tracked=_tracked(reader),
        evaluation=_evaluation(reader, steps.get("evaluate")),
        failures=_failures(reader, failures),
        settings=tuple(_settings(reader.json(plan, "the plan"))) if plan.strip() else (),
        manifest=_manifest(reader, expected="download" in steps),
        versions=dict(_versions()),
        remarks=tuple(reader.remarks),
    )


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def text(value: Any) -> str:
    """Any plain value for people: text as it is, nothing for None, JSON for the rest."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def records(value: Any) -> list[Mapping[str, Any]]:
    """The maps of a list; nothing for anything else."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def record(value: Any) -> Mapping[str, Any]:
    """A map; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def _steps(reader: _Reader) -> dict[str, Step]:
    found = {}
    for name in STEPS:
        content = reader.content(f"results/{name}.json", expected=False)
        if content is None:
            continue
        kept = reader.json(content, f"results/{name}.json")
        if not isinstance(kept, dict):
            continue
        found[name] = Step(
            name,
            settings=record(kept.get("settings")),
            result=record(kept.get("result")),
            started=_moment(kept.get("started")),
            seconds=number(kept.get("seconds")),
        )
    return found


def _moment(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def _curve(reader: _Reader, *, expected: bool) -> tuple[Mapping[str, float], ...]:
    """Points by step; a step that was logged again after a resume counts as logged last."""
    points: dict[float, dict[str, float]] = {}
    damaged = 0
    for line in (reader.content("report/train.jsonl", expected=expected) or "").splitlines():
        try:
            logged = record(json.loads(line)) if line.strip() else {}
        except (ValueError, RecursionError):
            damaged += 1
            continue
        values = {key: value for key, entry in logged.items() if (value := number(entry)) is not None}
        if "step" in values:
            points.setdefault(values["step"], {}).update(values)
    if damaged:
        reader.remarks.append(f"{damaged} lines of report/train.jsonl could not be read")
    return tuple(points[step] for step in sorted(points))


def _tracked(reader: _Reader) -> str:
    content = reader.content("checkpoints/tracking.json", expected=False)
    kept = record(reader.json(content, "checkpoints/tracking.json")) if content is not None else {}
    tool = TOOLS.get(text(kept.get("report_to")))
    return f"{tool.name}, run {text(kept.get('run'))}" if tool and kept.get("run") else ""


def _evaluation(reader: _Reader, step: Step | None) -> Evaluation:
    content = reader.content("report/evaluation.json", expected=step is not None)
    told = record(reader.json(content, "report/evaluation.json")) if content is not None else {}
    told = {**(step.result if step else {}), **told}
    interval = record(told.get("loss_ratio"))
    return Evaluation(
        verdict=text(told.get("verdict")),
        reason=text(told.get("reason")),
        rules=tuple(
            Rule(text(one.get("name")), text(one.get("wanted")), number(one.get("measured")), one.get("ok") is True)
            for one in records(told.get("gate"))
        ),
        scores=_scores(told),
        base_loss=number(told.get("base_loss")),
        adapter_loss=number(told.get("adapter_loss")),
        previous_loss=number(told.get("previous_loss")),
        base_perplexity=number(told.get("base_perplexity")),
        adapter_perplexity=number(told.get("adapter_perplexity")),
        rows=number(told.get("rows")),
        max_loss_ratio=number(step.settings.get("max_loss_ratio")) if step else None,
        low=number(interval.get("low")),
        high=number(interval.get("high")),
        level=number(interval.get("level")),
        answers=tuple(
            Answer(
                *(
                    text(sample.get(key))
                    for key in ("question", "reference", "base_answer", "adapter_answer", "previous_answer")
                )
            )
            for sample in records(told.get("samples"))
        ),
        regressions=_regressions(told.get("regressions")),
        regressions_against_previous=_regressions(told.get("regressions_against_previous")),
    )


def _scores(told: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    models = {name: record(scores) for name, scores in record(told.get("scores")).items()}
    found = {
        name: {model: number(scores.get(key)) for model, scores in models.items()}
        for key, name in SCORES.items()
        if models
    }
    for task in records(told.get("tasks")):
        lower = ", lower is better" if task.get("higher_is_better") is False else ""
        found[text(task.get("name")) + lower] = {key: number(task.get(key)) for key in ("base", "adapter", "previous")}
    return found


def _regressions(told: Any) -> tuple[Regression, ...]:
    losses = ("base_loss", "adapter_loss", "previous_loss")
    return tuple(
        Regression(text(row.get("question")), *(number(row.get(loss)) for loss in losses)) for row in records(told)
    )


def _failures(reader: _Reader, given: str) -> tuple[Failure, ...]:
    """Argo's ``workflow.failures``: a JSON list, itself quoted once more by some versions; ``null`` when none."""
    if not given.strip() or "{{" in given:
        return ()
    before = len(reader.remarks)
    told = reader.json(given, "the list of failures")
    if isinstance(told, str):
        told = reader.json(told, "the list of failures")
    if len(reader.remarks) > before:
        # Argo quotes as Go does, which is not always JSON: better raw than not at all.
        return (Failure("", "", redact(given), ""),)
    return tuple(
        Failure(
            step=text(entry.get("displayName") or entry.get("templateName")),
            phase=text(entry.get("phase")),
            message=text(entry.get("message")),
            when=text(entry.get("finishedAt")),
        )
        for entry in records(told)
    )


def _settings(node: Any, path: str = "") -> Iterator[Setting]:
    if isinstance(node, dict) and "value" in node and "origin" in node:
        yield Setting(path, text(node["value"]), text(node["origin"]))
    elif isinstance(node, dict):
        for key, inner in node.items():
            yield from _settings(inner, f"{path}.{key}" if path else str(key))
    elif node is not None:
        yield Setting(path, text(node), "")


def _manifest(reader: _Reader, *, expected: bool) -> Mapping[str, Any]:
    content = reader.content("dataset/manifest.json", expected=expected)
    return record(reader.json(content, "dataset/manifest.json")) if content is not None else {}


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
