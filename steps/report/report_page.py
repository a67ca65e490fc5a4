"""The report as one HTML page: no network, no script; one function a section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC
from pathlib import Path
from typing import Any

from steps.report import report_evaluation, report_training
from steps.report.report_data import STEPS, Failure, ReportData, Setting, number, records, text
from steps.report.report_html import DASH, duration, figure, none, percent, section, shown, table

STYLE = Path(__file__).with_name("report.css")
MISSING = "not made"


def page(facts: ReportData) -> str:
    """The whole report. Everything that comes from the run is escaped."""
    sections = [
        _headline(facts),
        _failures(facts.failures),
        _news(facts),
        report_evaluation.evaluation(facts),
        report_evaluation.answers(facts),
        report_evaluation.regressions(facts),
        report_training.training(facts),
        _lineage(facts),
        _steps(facts),
        _settings(facts.settings),
        _versions(facts),
        _remarks(facts.remarks),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        # Nothing in this file may load anything or run, whatever a data set or a model wrote into it.
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{shown(facts.name)}: argotune report</title><style>{STYLE.read_text()}</style></head>\n"
        "<body><main>\n" + "\n".join(part for part in sections if part) + "\n</main></body></html>\n"
    )


def story(facts: ReportData) -> str:
    """What came of the run, in a sentence or two of plain text."""
    told = facts.evaluation
    if facts.of("check", "changed") == "false":
        return "Data and settings are those of the adapter in service. Nothing was tuned."
    if told.base_loss is None or told.adapter_loss is None:
        last = next((name for name in reversed(STEPS) if name in facts.steps), "")
        how = f"The last step that finished is {last}." if last else "No step finished."
        return f"There is no evaluation of the adapter. {how}"
    losses = f"its loss on held-out rows is {figure(told.adapter_loss)}, the base model's is {figure(told.base_loss)}"
    if told.previous_loss is not None:
        losses += f", that of the adapter in service {figure(told.previous_loss)}"
    if told.verdict == "pass":
        endpoint = facts.of("rollout", "endpoint")
        return f"The adapter passed: {losses}." + (f" It is served at {endpoint}." if endpoint else "")
    if told.verdict == "fail":
        why = f" ({told.reason})" if told.reason else ""
        return f"The adapter did not pass the gate{why}: {losses}. It was not packaged or served."
    return f"The adapter was evaluated: {losses}."


def _headline(facts: ReportData) -> str:
    told = facts.evaluation
    good = {"Succeeded": "good", "pass": "good", "Failed": "bad", "Error": "bad", "fail": "bad"}
    badges = [facts.status, f"verdict: {told.verdict}"] if told.verdict else [facts.status]
    marks = "".join(
        f'<span class="badge {good.get(badge.split(": ")[-1], "plain")}">{shown(badge)}</span>' for badge in badges
    )
    tiles = [
        _tile("Held-out loss", f"{figure(told.base_loss)} → {figure(told.adapter_loss)}", "base → adapter"),
        _tile("Share of base loss", percent(told.ratio), _gate(told.max_loss_ratio)),
        _tile("Time", duration(facts.busy_seconds), "in steps"),
        _tile("Trained on", facts.of("tune", "device").upper() or DASH, _speed(facts)),
        _tile("Peak memory", _gib(facts.peak_memory_gib), "while training"),
    ]
    return (
        f"<header><h1>{shown(facts.name)}</h1><div>{marks}</div><p class=lead>{shown(story(facts))}</p>"
        f"<dl class=tiles>{''.join(tiles)}</dl></header>"
    )


def _failures(failures: Iterable[Failure]) -> str:
    told = [
        f"<div class=failure><b>{shown(one.step or 'a step')}</b> <small>{shown(one.phase)} {shown(one.when)}</small>"
        f"<p>{shown(one.message or 'no message was given')}</p></div>"
        for one in failures
    ]
    return section("What failed", "".join(told)) if told else ""


def _news(facts: ReportData) -> str:
    """What the check step of a retraining found."""
    if "check" not in facts.steps:
        return ""
    previous, difference = facts.of("check", "previous"), facts.of("check", "difference")
    if not previous:
        return section("What is new", "<p>No adapter was in service before this run.</p>")
    new = f"New {shown(difference)}, against" if facts.of("check", "changed") == "true" else "Nothing, against"
    return section(
        "What is new", f"<p>{new} the adapter in service before this run: <code>{shown(previous)}</code></p>"
    )


def _lineage(facts: ReportData) -> str:
    rows, held_out = facts.of("download", "rows"), facts.of("download", "eval_rows")
    model = facts.of("tune", "model") or facts.setting("model.repository") or facts.of("rollout", "model")
    revision = facts.of("tune", "revision") or facts.setting("model.revision")
    image = facts.of("package", "image_reference")
    size = number(facts.of("package", "size_bytes"))
    pushed = {"true": "pushed", "false": "not pushed"}.get(facts.of("package", "pushed"), "")
    links = [
        _link(
            "Data",
            _sources(facts),
            facts.of("download", "data_digest"),
            rows and f"{rows} rows to train on{f', {held_out} held out' if held_out else ''}",
        ),
        _link("Base model", model, revision and f"revision {revision}", facts.of("tune", "preset")),
        _link("Adapter", facts.of("tune", "method"), facts.of("tune", "adapter_digest"), _steps_taken(facts)),
        _link("Image", image, facts.of("package", "image_digest"), size and f"{size / 1e6:,.1f} MB, {pushed}"),
        _link("Endpoint", facts.of("rollout", "endpoint"), "", facts.of("rollout", "server")),
    ]
    return section("From data to endpoint", f"<ol class=chain>{''.join(links)}</ol>")


def _link(name: str, main: str, digest: str, detail: object) -> str:
    if not main and not digest:
        return f"<li class=missing><p><b>{name}</b></p><p class=none>{MISSING}</p></li>"
    lines = [f"<p><b>{name}</b> {shown(main)}</p>"]
    lines += [f"<p><code>{shown(digest)}</code></p>"] if digest else []
    lines += [f"<p class=soft>{shown(detail)}</p>"] if detail else []
    return f"<li>{''.join(lines)}</li>"


def _sources(facts: ReportData) -> str:
    """Where the rows came from: the manifest of download says it, or else its settings."""
    listed = ", ".join(_source(source) for source in records(facts.manifest.get("sources")))
    given = facts.of("download", "urls").strip('[]"').replace('", "', ", ")
    return listed or given or facts.of("download", "source")


def _source(told: Mapping[str, Any]) -> str:
    weight, rows = number(told.get("weight")), number(told.get("train_rows"))
    return text(told.get("from")) + ("" if weight is None else f" (weight {figure(weight)}: {figure(rows)} rows)")


def _steps(facts: ReportData) -> str:
    rows = [
        [
            step.name,
            step.started.astimezone(UTC).strftime("%d %b %H:%M:%S") if step.started else DASH,
            duration(step.seconds),
        ]
        for step in facts.steps.values()
    ]
    if not rows:
        return section("Steps", none("No step finished."))
    note = "<p class=soft>The last attempt of each step; one that was interrupted and resumed took longer in all.</p>"
    return section("Steps", table(["Step", "Started (UTC)", "Took"], rows) + note)


def _settings(settings: Iterable[Setting]) -> str:
    groups: dict[str, list[str]] = {}
    for one in settings:
        part, dot, name = one.path.partition(".")
        row = (
            f"<tr><th scope=row>{shown(name if dot else part)}</th><td><code>{shown(one.value) or DASH}</code></td>"
            f"<td>{shown(one.origin)}</td></tr>"
        )
        groups.setdefault(part if dot else "run", []).append(row)
    told = "".join(
        f"<h3>{shown(name)}</h3><table class=settings>{''.join(rows)}</table>" for name, rows in groups.items()
    )
    return section("Settings, and where each comes from", told or none("The plan was not handed over."))


def _versions(facts: ReportData) -> str:
    told = ", ".join(f"{shown(name)} {shown(version)}" for name, version in facts.versions.items())
    return section("Versions", f"<p>{told}</p><p class=soft>Installed where this report was written.</p>")


def _remarks(remarks: Iterable[str]) -> str:
    told = "".join(f"<li>{shown(remark, 300)}</li>" for remark in remarks)
    return section("What could not be read", f"<ul class=soft>{told}</ul>") if told else ""


def _tile(name: str, value: str, note: str) -> str:
    if not value.strip(f"{DASH} →"):
        return ""
    return f"<div><dt>{name}</dt><dd>{shown(value, 60)}<small>{shown(note, 80)}</small></dd></div>"


def _gib(size: float | None) -> str:
    return DASH if size is None else f"{size:.3g} GiB"


def _gate(ratio: float | None) -> str:
    return f"must be below {percent(ratio)}" if ratio is not None else ""


def _speed(facts: ReportData) -> str:
    speed = number(facts.of("tune", "tokens_per_second"))
    return f"{figure(speed)} tokens a second" if speed is not None else ""


def _steps_taken(facts: ReportData) -> str:
    parts = [
        (facts.of("tune", "steps"), "{} steps"),
        (facts.of("tune", "rank"), "rank {}"),
        (facts.of("tune", "train_loss"), "train loss {}"),
    ]
    return ", ".join(words.format(figure(number(value))) for value, words in parts if value)
