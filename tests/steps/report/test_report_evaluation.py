"""The report shows what the evaluation measured, by which rule the gate said no, and what is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_sample import EVALUATION, Reader, put, write_run, written

GATE = [
    {"name": "maxLossRatio", "wanted": "< 1", "measured": 0.1618, "ok": True},
    {"name": "minRougeL", "wanted": ">= 0.75", "measured": 0.6125, "ok": False},
]


def with_evaluation(work: Path, **told: Any) -> Reader:
    write_run(work)
    put(work / "report" / "evaluation.json", {**EVALUATION, **told})
    return Reader(written(work))


def test_scores_and_rules(tmp_path: Path) -> None:
    scores = {
        "base": {"exact_match": 0.0, "rouge_l": 0.125},
        "adapter": {"exact_match": 0.4, "rouge_l": 0.6125},
    }
    page = with_evaluation(tmp_path, scores=scores, gate=GATE, verdict="fail", reason="minRougeL is 0.6125")
    assert page.says("Exact match 0 0.4")
    assert page.says("ROUGE-L 0.125 0.6125")
    assert page.says("maxLossRatio < 1 0.1618 yes")
    assert page.says("minRougeL >= 0.75 0.6125 no")
    assert page.says("The adapter did not pass the gate (minRougeL is 0.6125)")
    assert not page.says("In service")


def test_the_adapter_in_service_beside_the_others(tmp_path: Path) -> None:
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
    assert page.says("In service 24 Nm or so.")
    assert page.says("is higher than that in service, worst first")
    assert page.says("Which nut? 3.5 0.75 0.5")
    assert page.says("ROUGE-L 0.25 0.25 0.25")


def test_tasks_of_lm_eval_stand_beside_the_scores(tmp_path: Path) -> None:
    tasks = [
        {"name": "arc_easy, acc", "base": 0.52, "adapter": 0.5, "higher_is_better": True},
        {"name": "wikitext, word_perplexity", "base": 21.5, "adapter": 23.25, "higher_is_better": False},
    ]
    page = with_evaluation(tmp_path, tasks=tasks)
    assert page.says("arc_easy, acc 0.52 0.5")
    assert page.says("wikitext, word_perplexity, lower is better 21.5 23.25")


def test_what_is_served_and_what_was_evaluated(tmp_path: Path) -> None:
    write_run(tmp_path)
    file = tmp_path / "results" / "rollout.json"
    kept = json.loads(file.read_text())
    kept["result"]["agreement"] = "5 of 5 answers as in the evaluation"
    put(file, kept)
    assert Reader(written(tmp_path)).says("Served and evaluated: 5 of 5 answers as in the evaluation.")
