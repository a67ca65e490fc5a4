"""Read what a run left behind; missing and damaged files become warnings and never raise."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from steps.report.argo_values import parse_plan
from steps.report.gpu_usage import GpuNodes
from steps.report.report_data import (
    STEPS,
    Answer,
    Evaluation,
    Regression,
    ReportData,
    Rule,
    Setting,
    Step,
    TrialRun,
    record,
    records,
    text,
)
from steps.report.report_gpu import read_nodes, read_usage
from steps.report.settings import Settings
from steps.runtime import gpu_time
from steps.runtime.json_text import number, parse_json
from steps.runtime.redaction import redact
from steps.serving import benchmark_result
from steps.tune.tracking_tools import TOOLS

SCORES = {"exact_match": "Exact match", "rouge_l": "ROUGE-L"}
VERSIONS = ("argotune", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "vllm")
MAX_SECONDS = 366 * 24 * 3600.0
"""Longest duration of a step."""


def read_run(settings: Settings) -> ReportData:
    """Return what the run left in the work folder and what the workflow reports about itself."""
    reader = _Reader(settings.work)
    plan = _plan(settings.plan)
    if plan is None:
        reader.warnings.append("the plan could not be read: it is not a JSON mapping")
    steps = _steps(reader)
    values = tuple(_settings(redact(plan or {})))
    attempts, nodes = gpu_time.read(settings.work), read_nodes(settings.gpu_nodes)
    trials = tuple(_trial(settings.work, dict(trial), attempts, nodes) for trial in settings.trials)
    return ReportData(
        status=settings.status or "unknown",
        steps=steps,
        curve=_curve(reader, expected="tune" in steps),
        tracked=_tracked(reader),
        evaluation=_evaluation(reader, steps.get("evaluate")),
        failures=settings.failures,
        settings=values,
        manifest=_manifest(reader, expected="download" in steps),
        versions=dict(_versions()),
        warnings=tuple(reader.warnings),
        gpu=read_usage(attempts, nodes),
        budget_hours=settings.budget_hours,
        trials=trials,
        benchmark=benchmark_result.read(settings.work),
    )


def _plan(plan: Mapping[str, Any] | Path | None) -> Mapping[str, Any] | None:
    """Return the plan, read from its file if it is a path; None if it could not be read."""
    if not isinstance(plan, Path):
        return plan
    try:
        content = parse_plan(plan.read_text(errors="replace"))
    except OSError:
        return None
    return content if isinstance(content, dict) else None


@dataclass
class _Reader:
    """Reads one file after another and collects warnings."""

    work: Path
    warnings: list[str] = field(default_factory=list)

    def parse(self, content: str, name: str) -> Any:
        try:
            return redact(parse_json(content))
        except ValueError as error:
            self.warnings.append(f"{name} could not be read: {error}")
            return None

    def content(self, path: str, *, expected: bool = True) -> str | None:
        try:
            return (self.work / path).read_bytes().decode(errors="replace")
        except FileNotFoundError:
            if expected:
                self.warnings.append(f"{path} is missing")
        except OSError as error:
            self.warnings.append(f"{path} could not be read: {error.strerror}")
        return None


def _steps(reader: _Reader) -> dict[str, Step]:
    steps = {}
    for name in STEPS:
        file = reader.content(f"results/{name}.json", expected=False)
        if file is None:
            continue
        content = reader.parse(file, f"results/{name}.json")
        if not isinstance(content, dict):
            continue
        steps[name] = Step(
            name,
            settings=record(content.get("settings")),
            result=record(content.get("result")),
            started=_parse_time(content.get("started")),
            seconds=_duration(content.get("seconds")),
        )
    return steps


def _duration(value: Any) -> float | None:
    """Return seconds; None for what cannot be a step's duration, and could not be added to its start."""
    seconds = number(value)
    return seconds if seconds is not None and 0 <= seconds <= MAX_SECONDS else None


def _parse_time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return None
    return moment if moment.tzinfo else None


def _curve(reader: _Reader, *, expected: bool) -> tuple[Mapping[str, float], ...]:
    """Return the points by step; the last one counts for a step that was logged again after a restart."""
    points: dict[float, dict[str, float]] = {}
    damaged = 0
    for line in (reader.content("report/train.jsonl", expected=expected) or "").splitlines():
        try:
            logged = record(parse_json(line)) if line.strip() else {}
        except ValueError:
            damaged += 1
            continue
        values = {key: value for key, entry in logged.items() if (value := number(entry)) is not None}
        if "step" in values:
            points.setdefault(values["step"], {}).update(values)
    if damaged:
        reader.warnings.append(f"{damaged} lines of report/train.jsonl could not be read")
    return tuple(points[step] for step in sorted(points))


def _trial(work: Path, values: dict[str, str], attempts: Sequence[gpu_time.Attempt], nodes: GpuNodes) -> TrialRun:
    """Return what a trial left in its directory; a missing file means that it failed, so there are no warnings."""
    name = values.pop("candidate", "")
    reader = _Reader(work / gpu_time.CANDIDATES / name)
    steps = _steps(reader)
    tuned, evaluation = steps.get("tune"), _evaluation(reader, steps.get("evaluate"))
    return TrialRun(
        name,
        values,
        curve=_curve(reader, expected=False),
        share=(number(tuned.settings.get("stop_after")) if tuned else None) or 1,
        device=text(tuned.result.get("device")) if tuned else "",
        base_loss=evaluation.base_loss,
        adapter_loss=evaluation.adapter_loss,
        verdict=evaluation.verdict,
        paid_seconds=sum(
            attempt.total * nodes.share(attempt.step) for attempt in attempts if attempt.candidate == name
        ),
    )


def _tracked(reader: _Reader) -> str:
    content = reader.content("checkpoints/tracking.json", expected=False)
    run = record(reader.parse(content, "checkpoints/tracking.json")) if content is not None else {}
    tool = TOOLS.get(text(run.get("report_to")))
    return f"{tool.name}, run {text(run.get('run'))}" if tool and run.get("run") else ""


def _evaluation(reader: _Reader, step: Step | None) -> Evaluation:
    content = reader.content("report/evaluation.json", expected=step is not None)
    values = record(reader.parse(content, "report/evaluation.json")) if content is not None else {}
    values = {**(step.result if step else {}), **values}
    interval = record(values.get("loss_ratio"))
    return Evaluation(
        verdict=text(values.get("verdict")),
        reason=text(values.get("reason")),
        rules=tuple(
            Rule(
                text(rule.get("name")), text(rule.get("wanted")), number(rule.get("measured")), rule.get("ok") is True
            )
            for rule in records(values.get("gate"))
        ),
        scores=_scores(values),
        base_loss=number(values.get("base_loss")),
        adapter_loss=number(values.get("adapter_loss")),
        previous_loss=number(values.get("previous_loss")),
        base_perplexity=number(values.get("base_perplexity")),
        adapter_perplexity=number(values.get("adapter_perplexity")),
        rows=number(values.get("rows")),
        max_loss_ratio=number(step.settings.get("max_loss_ratio")) if step else None,
        ratio_low=number(interval.get("low")),
        ratio_high=number(interval.get("high")),
        confidence=number(interval.get("level")),
        answers=tuple(
            Answer(
                *(
                    text(sample.get(key))
                    for key in ("question", "reference", "base_answer", "adapter_answer", "previous_answer")
                )
            )
            for sample in records(values.get("samples"))
        ),
        regressions=_regressions(values.get("regressions")),
        regressions_against_previous=_regressions(values.get("regressions_against_previous")),
    )


def _scores(values: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    models = {name: record(scores) for name, scores in record(values.get("scores")).items()}
    by_name = {
        name: {model: number(scores.get(key)) for model, scores in models.items()}
        for key, name in SCORES.items()
        if models
    }
    for task in records(values.get("tasks")):
        lower = ", lower is better" if task.get("higher_is_better") is False else ""
        by_name[text(task.get("name")) + lower] = {
            key: number(task.get(key)) for key in ("base", "adapter", "previous")
        }
    return by_name


def _regressions(rows: Any) -> tuple[Regression, ...]:
    losses = ("base_loss", "adapter_loss", "previous_loss")
    return tuple(
        Regression(text(row.get("question")), *(number(row.get(loss)) for loss in losses)) for row in records(rows)
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
    return record(reader.parse(content, "dataset/manifest.json")) if content is not None else {}


def _versions() -> Iterator[tuple[str, str]]:
    for name in VERSIONS:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
