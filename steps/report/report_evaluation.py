"""The evaluation in the report: figures, rules of the gate, answers side by side, and where the adapter is worse."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steps.report.report_data import Answer, Evaluation, Regression, ReportData, number
from steps.report.report_html import figure, none, percent, section, shown, table

MAX_ANSWERS = 50
MAX_EXPONENT = 700


def evaluation(facts: ReportData) -> str:
    """Base, adapter and the adapter in service side by side, and what came of each rule."""
    told = facts.evaluation
    if told.base_loss is None and told.adapter_loss is None:
        return section("Evaluation", none("The adapter was not evaluated."))
    ratio = (
        told.adapter_perplexity / told.base_perplexity if told.adapter_perplexity and told.base_perplexity else None
    )
    rows = [
        ["Loss", figure(told.base_loss), figure(told.adapter_loss), percent(told.ratio)],
        ["Perplexity", figure(told.base_perplexity), figure(told.adapter_perplexity), percent(ratio)],
    ]
    head = ["", "Base", "Adapter", "Adapter / base"]
    for name, scores in told.scores.items():
        rows.append([name, *(figure(scores.get(model)) for model in ("base", "adapter")), ""])
    if told.previous_loss is not None:
        head.append("In service")
        before = [told.previous_loss, math.exp(min(told.previous_loss, MAX_EXPONENT))]
        for row, value in zip(
            rows, [*before, *(scores.get("previous") for scores in told.scores.values())], strict=True
        ):
            row.append(figure(value))
    under = f"On {figure(told.rows)} held-out rows. " if told.rows is not None else ""
    better = "Of loss and perplexity, lower is better." if told.scores else "Lower is better."
    leaked = number(facts.manifest.get("held_out_rows_in_train"))
    warning = f"<p>{figure(leaked)} held-out rows are among the training rows too, which flatters the adapter.</p>"
    return section(
        "Evaluation",
        table(head, rows)
        + f"<p class=soft>{under}{_interval(told)}{better}</p>{warning if leaked else ''}"
        + _rules(told),
    )


def _interval(told: Evaluation) -> str:
    if told.low is None or told.high is None:
        return ""
    sure = f", with {percent(told.level)} confidence over the rows" if told.level is not None else ""
    return f"The adapter's loss is {percent(told.low)} to {percent(told.high)} of the base's{sure}. "


def _rules(told: Evaluation) -> str:
    rows = [[rule.name, rule.wanted, figure(rule.measured), "yes" if rule.ok else "no"] for rule in told.rules]
    return table(["Rule of the gate", "Wanted", "Measured", "Holds"], rows) if rows else ""


def answers(facts: ReportData) -> str:
    """What was asked at the endpoint and in the evaluation, and what each model said."""
    cards = [_card(answer) for answer in facts.evaluation.answers[:MAX_ANSWERS]]
    served = facts.of("rollout", "answer")
    if served:
        question = facts.of("rollout", "question") or "A greeting"
        live = _card(Answer(question, "", facts.of("rollout", "base_answer"), served), "asked at the endpoint")
        cards.insert(0, live)
    left = len(facts.evaluation.answers) - MAX_ANSWERS
    more = f"<p class=soft>{left} more are in report/evaluation.json.</p>" if left > 0 else ""
    agreement = facts.of("rollout", "agreement")
    same = f"<p class=soft>Served and evaluated: {shown(agreement)}.</p>" if agreement else ""
    return section("Answers side by side", same + "".join(cards) + more) if cards else ""


def _card(answer: Answer, where: str = "") -> str:
    columns = [("base", "Base", answer.base), ("adapter", "Adapter", answer.adapter)]
    if answer.previous:
        columns.append(("previous", "In service", answer.previous))
    if answer.reference:
        columns.append(("reference", "Reference", answer.reference))
    told = "".join(
        f"<div><dt class={kind}>{name}</dt><dd dir=auto>{shown(words) or '<i class=soft>nothing</i>'}</dd></div>"
        for kind, name, words in columns
    )
    note = f" <small>{shown(where)}</small>" if where else ""
    return f"<article class=answer><h3 dir=auto>{shown(answer.question)}{note}</h3><dl>{told}</dl></article>"


def regressions(facts: ReportData) -> str:
    """Rows on which the adapter does worse than its base, or than the adapter in service."""
    told = facts.evaluation
    tables = _worse(told.regressions, "the base's") + _worse(told.regressions_against_previous, "that in service")
    return section("Where the adapter is worse", tables) if tables else ""


def _worse(worse: Sequence[Regression], than: str) -> str:
    shown_rows = worse[:MAX_ANSWERS]
    if not shown_rows:
        return ""
    compared = any(row.previous_loss is not None for row in shown_rows)
    rows = [
        [row.question, figure(row.base_loss), figure(row.adapter_loss)]
        + ([figure(row.previous_loss)] if compared else [])
        for row in shown_rows
    ]
    head = ["Question", "Base loss", "Adapter loss"] + (["In service"] if compared else [])
    first = f"<p class=soft>Held-out rows on which the adapter's loss is higher than {than}, worst first.</p>"
    return first + table(head, rows)
