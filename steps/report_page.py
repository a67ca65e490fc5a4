"""The report as one HTML page: no network, no script; one function a section."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC
from html import escape
from pathlib import Path

from steps.report_charts import Series, line_chart, smooth
from steps.report_facts import STEPS, Answer, Evaluation, Facts, Failure, Setting, number, records, text

STYLE = Path(__file__).with_name("report.css")
LONGEST_TEXT = 4000
MOST_ANSWERS = 50
SMOOTH_FROM = 30
LARGEST_EXPONENT = 700
SMALL_CHARTS = (
    ("learning_rate", "Learning rate"),
    ("grad_norm", "Gradient norm"),
    ("tokens_per_second", "Tokens a second"),
)
MISSING = "not made"
DASH = "\N{EN DASH}"


def page(facts: Facts) -> str:
    """The whole report. Everything that comes from the run is escaped."""
    sections = [
        _headline(facts),
        _failures(facts.failures),
        _news(facts),
        _evaluation(facts),
        _answers(facts),
        _regressions(facts),
        _training(facts),
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


def shown(value: object, longest: int = LONGEST_TEXT) -> str:
    """A value as HTML: escaped, without control characters, and cut where it is very long."""
    plain = text(value)
    if len(plain) > longest:
        plain = f"{plain[:longest]} … ({len(plain) - longest} more characters)"
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", plain.replace("\r\n", "\n"))
    return escape(plain)


def figure(value: float | None) -> str:
    """A number with four significant digits, or a dash."""
    if value is None:
        return DASH
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds for people: ``8.4 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def story(facts: Facts) -> str:
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
        return f"The adapter did not pass the gate: {losses}. It was not packaged or served."
    return f"The adapter was evaluated: {losses}."


def _headline(facts: Facts) -> str:
    told = facts.evaluation
    good = {"Succeeded": "good", "pass": "good", "Failed": "bad", "Error": "bad", "fail": "bad"}
    badges = [facts.status, f"verdict: {told.verdict}"] if told.verdict else [facts.status]
    marks = "".join(
        f'<span class="badge {good.get(badge.split(": ")[-1], "plain")}">{shown(badge)}</span>' for badge in badges
    )
    tiles = [
        _tile("Held-out loss", f"{figure(told.base_loss)} → {figure(told.adapter_loss)}", "base → adapter"),
        _tile("Share of base loss", _percent(told.ratio), _gate(told.max_loss_ratio)),
        _tile("Time", duration(facts.busy_seconds), "in steps"),
        _tile("Trained on", facts.of("tune", "device").upper() or DASH, _speed(facts)),
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
    return _section("What failed", "".join(told)) if told else ""


def _news(facts: Facts) -> str:
    """What the check step of a retraining found."""
    if "check" not in facts.steps:
        return ""
    previous, difference = facts.of("check", "previous"), facts.of("check", "difference")
    if not previous:
        return _section("What is new", "<p>No adapter was in service before this run.</p>")
    new = f"New {shown(difference)}, against" if facts.of("check", "changed") == "true" else "Nothing, against"
    return _section(
        "What is new", f"<p>{new} the adapter in service before this run: <code>{shown(previous)}</code></p>"
    )


def _evaluation(facts: Facts) -> str:
    told = facts.evaluation
    if told.base_loss is None and told.adapter_loss is None:
        return _section("Evaluation", _none("The adapter was not evaluated."))
    ratio = (
        told.adapter_perplexity / told.base_perplexity if told.adapter_perplexity and told.base_perplexity else None
    )
    rows = [
        ["Loss", figure(told.base_loss), figure(told.adapter_loss), _percent(told.ratio)],
        ["Perplexity", figure(told.base_perplexity), figure(told.adapter_perplexity), _percent(ratio)],
    ]
    head = ["", "Base", "Adapter", "Adapter / base"]
    if told.previous_loss is not None:
        head.append("In service")
        rows[0].append(figure(told.previous_loss))
        rows[1].append(figure(math.exp(min(told.previous_loss, LARGEST_EXPONENT))))
    under = f"On {figure(told.rows)} held-out rows. " if told.rows is not None else ""
    leaked = number(facts.manifest.get("held_out_rows_in_train"))
    warning = f"<p>{figure(leaked)} held-out rows are among the training rows too, which flatters the adapter.</p>"
    return _section(
        "Evaluation",
        _table(head, rows) + f"<p class=soft>{under}{_interval(told)}Lower is better.</p>{warning if leaked else ''}",
    )


def _interval(told: Evaluation) -> str:
    if told.low is None or told.high is None:
        return ""
    sure = f", with {_percent(told.level)} confidence over the rows" if told.level is not None else ""
    return f"The adapter's loss is {_percent(told.low)} to {_percent(told.high)} of the base's{sure}. "


def _answers(facts: Facts) -> str:
    cards = [_card(answer) for answer in facts.evaluation.answers[:MOST_ANSWERS]]
    served = facts.of("rollout", "answer")
    if served:
        question = facts.of("rollout", "question") or "A greeting"
        live = _card(Answer(question, "", facts.of("rollout", "base_answer"), served), "asked at the endpoint")
        cards.insert(0, live)
    left = len(facts.evaluation.answers) - MOST_ANSWERS
    more = f"<p class=soft>{left} more are in report/evaluation.json.</p>" if left > 0 else ""
    return _section("Answers side by side", "".join(cards) + more) if cards else ""


def _card(answer: Answer, where: str = "") -> str:
    columns = [("base", "Base", answer.base), ("adapter", "Adapter", answer.adapter)]
    if answer.reference:
        columns.append(("reference", "Reference", answer.reference))
    told = "".join(
        f"<div><dt class={kind}>{name}</dt><dd dir=auto>{shown(words) or '<i class=soft>nothing</i>'}</dd></div>"
        for kind, name, words in columns
    )
    note = f" <small>{shown(where)}</small>" if where else ""
    return f"<article class=answer><h3 dir=auto>{shown(answer.question)}{note}</h3><dl>{told}</dl></article>"


def _regressions(facts: Facts) -> str:
    worse = facts.evaluation.regressions[:MOST_ANSWERS]
    if not worse:
        return ""
    rows = [[row.question, figure(row.base_loss), figure(row.adapter_loss)] for row in worse]
    return _section(
        "Where the adapter is worse",
        "<p class=soft>Held-out rows on which the adapter's loss is higher than the base's, worst first.</p>"
        + _table(["Question", "Base loss", "Adapter loss"], rows),
    )


def _training(facts: Facts) -> str:
    loss, held_out = _points(facts, "loss"), _points(facts, "eval_loss")
    if not loss and not held_out:
        return _section("Training", _none("There is no loss curve: training logged nothing."))
    if len(loss) < SMOOTH_FROM:
        series = [Series("train loss", loss)]
    else:
        series = [Series("each step", loss, "faint"), Series("train loss, smoothed", smooth(loss, len(loss) // 10))]
    series.append(Series("held-out loss", held_out, "other"))
    main = line_chart("Loss by step", _spoken("Loss", loss or held_out), series, x_label="step", y_label="loss")
    small = "".join(
        line_chart(
            title,
            _spoken(title, _points(facts, key)),
            [Series(title, _points(facts, key))],
            x_label="step",
            y_label="",
            height=120,
            from_zero=True,
        )
        for key, title in SMALL_CHARTS
    )
    return _section("Training", f"{main}<div class=small>{small}</div>")


def _lineage(facts: Facts) -> str:
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
    return _section("From data to endpoint", f"<ol class=chain>{''.join(links)}</ol>")


def _link(name: str, main: str, digest: str, detail: object) -> str:
    if not main and not digest:
        return f"<li class=missing><p><b>{name}</b></p><p class=none>{MISSING}</p></li>"
    lines = [f"<p><b>{name}</b> {shown(main)}</p>"]
    lines += [f"<p><code>{shown(digest)}</code></p>"] if digest else []
    lines += [f"<p class=soft>{shown(detail)}</p>"] if detail else []
    return f"<li>{''.join(lines)}</li>"


def _sources(facts: Facts) -> str:
    """Where the rows came from: the manifest of download says it, or else its settings."""
    listed = ", ".join(text(source.get("from")) for source in records(facts.manifest.get("sources")))
    given = facts.of("download", "urls").strip('[]"').replace('", "', ", ")
    return listed or given or facts.of("download", "source")


def _steps(facts: Facts) -> str:
    rows = [
        [
            step.name,
            step.started.astimezone(UTC).strftime("%d %b %H:%M:%S") if step.started else DASH,
            duration(step.seconds),
        ]
        for step in facts.steps.values()
    ]
    if not rows:
        return _section("Steps", _none("No step finished."))
    note = "<p class=soft>The last attempt of each step; one that was interrupted and resumed took longer in all.</p>"
    return _section("Steps", _table(["Step", "Started (UTC)", "Took"], rows) + note)


def _settings(settings: Iterable[Setting]) -> str:
    groups: dict[str, list[str]] = {}
    for one in settings:
        section, dot, name = one.path.partition(".")
        row = (
            f"<tr><th scope=row>{shown(name if dot else section)}</th><td><code>{shown(one.value) or DASH}</code></td>"
            f"<td>{shown(one.origin)}</td></tr>"
        )
        groups.setdefault(section if dot else "run", []).append(row)
    told = "".join(
        f"<h3>{shown(name)}</h3><table class=settings>{''.join(rows)}</table>" for name, rows in groups.items()
    )
    return _section("Settings, and where each comes from", told or _none("The plan was not handed over."))


def _versions(facts: Facts) -> str:
    told = ", ".join(f"{shown(name)} {shown(version)}" for name, version in facts.versions.items())
    return _section("Versions", f"<p>{told}</p><p class=soft>Installed where this report was written.</p>")


def _remarks(remarks: Iterable[str]) -> str:
    told = "".join(f"<li>{shown(remark, 300)}</li>" for remark in remarks)
    return _section("What could not be read", f"<ul class=soft>{told}</ul>") if told else ""


def _section(title: str, content: str) -> str:
    anchor = re.sub(r"\W+", "-", title.lower())
    return f"<section id={anchor}><h2>{title}</h2>{content}</section>"


def _none(sentence: str) -> str:
    return f"<p class=none>{sentence}</p>"


def _tile(name: str, value: str, note: str) -> str:
    if not value.strip(f"{DASH} →"):
        return ""
    return f"<div><dt>{name}</dt><dd>{shown(value, 60)}<small>{shown(note, 80)}</small></dd></div>"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """First column text, the others numbers."""

    def line(kind: str, cells: list[str]) -> str:
        return "".join(
            f"<{kind}{' class=n' if index else ''}>{shown(cell, 500)}</{kind}>" for index, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _percent(ratio: float | None) -> str:
    return DASH if ratio is None else f"{100 * ratio:.3g} %"


def _gate(ratio: float | None) -> str:
    return f"must be below {_percent(ratio)}" if ratio is not None else ""


def _speed(facts: Facts) -> str:
    speed = number(facts.of("tune", "tokens_per_second"))
    return f"{figure(speed)} tokens a second" if speed is not None else ""


def _steps_taken(facts: Facts) -> str:
    parts = [
        (facts.of("tune", "steps"), "{} steps"),
        (facts.of("tune", "rank"), "rank {}"),
        (facts.of("tune", "train_loss"), "train loss {}"),
    ]
    return ", ".join(words.format(figure(number(value))) for value, words in parts if value)


def _points(facts: Facts, key: str) -> list[tuple[float, float]]:
    """Points of the curve that can be drawn."""
    return [(p["step"], p[key]) for p in facts.curve if key in p and (p[key] == 0 or 1e-30 < abs(p[key]) < 1e30)]


def _spoken(name: str, points: list[tuple[float, float]]) -> str:
    if not points:
        return ""
    (first, start), (last, end) = points[0], points[-1]
    low = min(y for _, y in points)
    return (
        f"{name} goes from {start:.4g} at step {first:.6g} to {end:.4g} at step {last:.6g}; the lowest is {low:.4g}. "
        f"{len(points)} points."
    )
