"""The report as one HTML page without network access or scripts, rendered by Jinja (``templates/``).

All values are escaped and have no control characters, because each expression of a template passes ``format_text``
and Jinja's autoescape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from steps.report.formatting import DASH, format_duration, format_number, format_percent, format_text
from steps.report.report_data import STEPS, ReportData, Setting, records, text
from steps.report.report_evaluation import evaluation_context
from steps.report.report_gpu import gpu_rows
from steps.report.report_search import search_section
from steps.report.report_training import training_section
from steps.runtime.json_text import number

FOLDER = Path(__file__).parent
BADGES = {"Succeeded": "good", "pass": "good", "Failed": "bad", "Error": "bad", "fail": "bad"}
"""CSS classes of statuses and verdicts."""


class Tile(NamedTuple):
    """A number at the top of the page."""

    name: str
    value: str
    note: str


class Link(NamedTuple):
    """A part of the chain from data to endpoint."""

    name: str
    value: str
    digest: str
    detail: str


def render_page(data: ReportData) -> str:
    """Return the page."""
    return _environment().get_template("report.html.jinja").render(
        data=data,
        style=Markup((FOLDER / "report.css").read_text()),
        dash=DASH,
        badges=_badges(data),
        summary=summarize(data),
        tiles=[tile for tile in _tiles(data) if tile.value not in ("", DASH)],
        changed=data.value("check", "changed") == "true",
        previous=data.value("check", "previous"),
        difference=data.value("check", "difference"),
        search=search_section(data),
        training=training_section(data),
        lineage=_lineage(data),
        steps=list(_steps(data)),
        gpu_rows=gpu_rows(data),
        benchmark=_benchmark(data),
        setting_groups=_setting_groups(data),
        **evaluation_context(data),
    )  # fmt: skip


def summarize(data: ReportData) -> str:
    """Return the outcome of the run in one or two sentences of plain text."""
    evaluation = data.evaluation
    if data.value("check", "changed") == "false":
        return "Data and settings are the same as those of the live adapter, so nothing was tuned."
    if data.trials and "promote" not in data.steps:
        return _summarize_failed_search(data)
    if evaluation.base_loss is None or evaluation.adapter_loss is None:
        last = next((name for name in reversed(STEPS) if name in data.steps), "")
        return "The adapter was not evaluated. " + (
            f"The last finished step is {last}." if last else "No step finished."
        )
    base, adapter = format_number(evaluation.base_loss), format_number(evaluation.adapter_loss)
    losses = f"its loss on held-out rows is {adapter}, compared with {base} for the base model"
    if evaluation.previous_loss is not None:
        losses += f" and {format_number(evaluation.previous_loss)} for the live adapter"
    if evaluation.verdict == "pass":
        endpoint = data.value("rollout", "endpoint")
        return f"The adapter passed the gate: {losses}." + (f" It is served at {endpoint}." if endpoint else "")
    if evaluation.verdict == "fail":
        reason = f" ({evaluation.reason})" if evaluation.reason else ""
        return f"The adapter failed the gate{reason}: {losses}. It was not packaged or served."
    return f"The adapter was evaluated: {losses}."


def _summarize_failed_search(data: ReportData) -> str:
    evaluated = [trial for trial in data.trials if trial.verdict]
    if any(trial.verdict == "pass" for trial in evaluated):
        return f"The search did not finish: {len(evaluated)} of {len(data.trials)} trials were evaluated."
    return (
        f"The search found no adapter: of {len(data.trials)} trials, {len(evaluated)} were evaluated, and none passed."
    )


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else format_text(value),
    )
    environment.filters |= {"cut": format_text, "number": format_number}
    return environment


def _badges(data: ReportData) -> dict[str, str]:
    """Return the CSS class of each badge, by its text."""
    verdict = data.evaluation.verdict
    badges = {f"run: {data.status}": BADGES.get(data.status, "plain")}
    return {**badges, f"gate: {verdict}": BADGES.get(verdict, "plain")} if verdict else badges


def _tiles(data: ReportData) -> list[Tile]:
    evaluation, max_ratio = data.evaluation, data.evaluation.max_loss_ratio
    limit = f"must be below {format_percent(max_ratio)}" if max_ratio is not None else ""
    speed = number(data.value("tune", "tokens_per_second"))
    device, memory = data.value("tune", "device").upper(), data.peak_memory_gib
    return [
        Tile(
            "Held-out loss",
            format_number(evaluation.adapter_loss),
            f"base model: {format_number(evaluation.base_loss)}",
        ),
        Tile("Adapter / base loss", format_percent(evaluation.ratio), limit),
        Tile("Total step time", format_duration(data.busy_seconds), "without queueing"),
        Tile("GPU time", *_gpu_time(data)),
        Tile("Training device", device, f"{format_number(speed)} tokens/s" if speed else ""),
        Tile("Peak memory", DASH if memory is None else f"{memory:.3g} GiB", "during training"),
    ]


def _gpu_time(data: ReportData) -> tuple[str, str]:
    """Return value and note of the tile; empty without a GPU."""
    if data.gpu is None or not data.gpu.nodes.gpus:
        return "", ""
    return f"{data.gpu.minutes():.1f} min", data.gpu.price


def _lineage(data: ReportData) -> list[Link]:
    rows, held_out = data.value("download", "rows"), data.value("download", "eval_rows")
    split = f"{rows} training rows" + (f", {held_out} held-out rows" if held_out else "") if rows else ""
    model = data.value("tune", "model") or data.setting("model.repository") or data.value("rollout", "model")
    revision = data.value("tune", "revision") or data.setting("model.revision")
    size = number(data.value("package", "size_bytes"))
    pushed = {"true": ", pushed", "false": ", not pushed"}.get(data.value("package", "pushed"), "")
    image, endpoint = data.value("package", "image_reference"), data.value("rollout", "endpoint")
    return [
        Link("Data", _sources(data), data.value("download", "data_digest"), split),
        Link("Base model", model, revision and f"revision {revision}", data.value("tune", "preset")),
        Link("Adapter", data.value("tune", "method"), data.value("tune", "adapter_digest"), _training_details(data)),
        Link("Image", image, data.value("package", "image_digest"), f"{size / 1e6:,.1f} MB{pushed}" if size else ""),
        Link("Endpoint", endpoint, "", data.value("rollout", "server")),
    ]


def _sources(data: ReportData) -> str:
    """Return the sources of the rows by the manifest of the download step, or else by its settings."""
    listed = ", ".join(_source(source) for source in records(data.manifest.get("sources")))
    urls = data.value("download", "urls").strip('[]"').replace('", "', ", ")
    inputs = "; ".join(_input(counts) for counts in records(data.manifest.get("inputs")))
    return inputs or listed or urls or data.value("download", "source")


def _input(counts: Mapping[str, Any]) -> str:
    numbers = [format_number(number(counts.get(key))) for key in ("rows", "train_rows", "eval_rows")]
    return "{}: {} rows, {} training rows, {} held out".format(text(counts.get("name")) or "tuning.input", *numbers)


def _source(source: Mapping[str, Any]) -> str:
    weight, rows = number(source.get("weight")), number(source.get("train_rows"))
    details = "" if weight is None else f" (weight {format_number(weight)}: {format_number(rows)} rows)"
    return text(source.get("from")) + details


def _training_details(data: ReportData) -> str:
    parts = [
        (data.value("tune", "steps"), "{} steps"),
        (data.value("tune", "rank"), "rank {}"),
        (data.value("tune", "train_loss"), "training loss {}"),
    ]
    return ", ".join(words.format(format_number(number(value))) for value, words in parts if value)


def _steps(data: ReportData) -> Iterator[list[str]]:
    for step in data.steps.values():
        started = step.started.astimezone(UTC).strftime("%d %b %H:%M:%S") if step.started else DASH
        yield [step.name, started, format_duration(step.seconds)]


def _benchmark(data: ReportData) -> list[list[str]]:
    """Return the rows of the benchmark's table; empty without a benchmark."""
    found = data.benchmark
    if found is None:
        return []
    return [
        ["Output tokens/s", format_number(found.output_tokens_per_second)],
        ["Tokens/s, with prompts", format_number(found.total_tokens_per_second)],
        ["Requests/s", format_number(found.requests_per_second)],
        ["Time to first token, median", f"{format_number(found.first_token_ms)} ms"],
        ["Time to first token, 99th percentile", f"{format_number(found.first_token_p99_ms)} ms"],
        ["Requests", f"{found.requests} answered, {found.failed} failed, {found.concurrency} at a time"],
        ["Tokens of a request", f"{found.input_tokens} prompt, {found.output_tokens} answer"],
        ["Model, date", f"{found.model}, {found.date}"],
    ]


def _setting_groups(data: ReportData) -> dict[str, list[Setting]]:
    """Return the values of the plan by section, with the rest of the path as the name."""
    groups: dict[str, list[Setting]] = {}
    for setting in data.settings:
        section, dot, name = setting.path.partition(".")
        group = groups.setdefault(section if dot else "run", [])
        group.append(Setting(name if dot else section, setting.value, setting.origin))
    return groups
