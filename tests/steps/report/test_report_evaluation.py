"""The evaluation in the report: metrics, gate, answers and regressions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_sample import EVALUATION, Reader, render, write, write_run

GATE = [
    {"name": "maxLossRatio", "wanted": "< 1", "measured": 0.1618, "ok": True},
    {"name": "minRougeL", "wanted": ">= 0.75", "measured": 0.6125, "ok": False},
]


def with_evaluation(work: Path, **values: Any) -> Reader:
    write_run(work)
    write(work / "report" / "evaluation.json", {**EVALUATION, **values})
    return Reader(render(work))


def test_scores_and_rules(tmp_path: Path) -> None:
    scores = {
        "base": {"exact_match": 0.0, "rouge_l": 0.125},
        "adapter": {"exact_match": 0.4, "rouge_l": 0.6125},
    }
    page = with_evaluation(tmp_path, scores=scores, gate=GATE, verdict="fail", reason="minRougeL is 0.6125")
    assert page.contains("Exact match 0 0.4")
    assert page.contains("ROUGE-L 0.125 0.6125")
    assert page.contains("maxLossRatio < 1 0.1618 yes")
    assert page.contains("minRougeL >= 0.75 0.6125 no")
    assert page.contains("The adapter failed the gate (minRougeL is 0.6125)")
    assert not page.contains("Live adapter")


def test_live_adapter_next_to_the_others(tmp_path: Path) -> None:
    scores = {name: {"exact_match": 0.5, "rouge_l": 0.25} for name in ("base", "adapter", "previous")}
    worse = {"question": "Which nut?", "base_loss": 3.5, "adapter_loss": 0.75, "previous_loss": 0.5}
    sample = {**EVALUATION["samples"][0], "previous_answer": "24 Nm or so."}
    page = with_evaluation(
        tmp_path,
        previous_loss=0.7,
        scores=scores,
        samples=[sample],
        regressions=[],
        regressions_against_previous=[worse],
    )
    assert page.contains("Live adapter 24 Nm or so.")
    assert page.contains("is higher than that of the live adapter, worst first")
    assert page.contains("Which nut? 3.5 0.75 0.5")
    assert page.contains("ROUGE-L 0.25 0.25 0.25")


def test_lm_eval_tasks_are_listed_with_the_scores(tmp_path: Path) -> None:
    tasks = [
        {"name": "arc_easy, acc", "base": 0.52, "adapter": 0.5, "higher_is_better": True},
        {"name": "wikitext, word_perplexity", "base": 21.5, "adapter": 23.25, "higher_is_better": False},
    ]
    page = with_evaluation(tmp_path, tasks=tasks)
    assert page.contains("arc_easy, acc 0.52 0.5")
    assert page.contains("wikitext, word_perplexity, lower is better 21.5 23.25")


def test_agreement_of_served_and_evaluated_answers(tmp_path: Path) -> None:
    write_run(tmp_path)
    file = tmp_path / "results" / "rollout.json"
    record = json.loads(file.read_text())
    record["result"]["agreement"] = "5 of 5 answers as in the evaluation"
    write(file, record)
    assert Reader(render(tmp_path)).contains(
        "Served model compared with the evaluation: 5 of 5 answers as in the evaluation."
    )
