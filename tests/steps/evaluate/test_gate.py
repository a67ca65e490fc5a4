"""The rules of the gate, one by one."""

import dataclasses
import math
from typing import Any

import pytest

from steps.evaluate import gate
from steps.evaluate.answer_metrics import Scores
from steps.evaluate.gate import Measurements
from steps.evaluate.settings import GateRules

GOOD = Measurements(
    loss_ratio=0.5,
    loss_ratio_high=0.6,
    regressions=0.1,
    scores=Scores(exact_match=0.4, rouge_l=0.7),
    previous_loss_ratio=0.9,
)


def judge(rules: dict[str, Any], **measured: Any) -> dict[str, bool]:
    outcomes = gate.judge(GateRules(**rules), dataclasses.replace(GOOD, **measured))
    return {outcome.name: outcome.ok for outcome in outcomes}


@pytest.mark.parametrize(
    ("name", "rules", "passing", "failing"),
    [
        ("maxLossRatio", {"max_loss_ratio": 0.8}, {"loss_ratio": 0.7999}, {"loss_ratio": 0.8}),
        ("confident", {"confident": True}, {"loss_ratio_high": 0.9999}, {"loss_ratio_high": 1.0}),
        ("minExactMatch", {"min_exact_match": 0.4}, {"scores": Scores(0.4, 0)}, {"scores": Scores(0.3999, 1)}),
        ("minRougeL", {"min_rouge_l": 0.4}, {"scores": Scores(0, 0.4)}, {"scores": Scores(1, 0.3999)}),
        ("maxRegressions", {"max_regressions": 0.25}, {"regressions": 0.25}, {"regressions": 0.2501}),
        ("maxRegressions", {"max_regressions": 0}, {"regressions": 0.0}, {"regressions": 0.01}),
        (
            "minTaskScores.arc/acc",
            {"min_task_scores": {"arc/acc": 0.5}},
            {"task_scores": {"arc/acc": 0.5}},
            {"task_scores": {"arc/acc": 0.4999}},
        ),
        ("minTaskScores.arc", {"min_task_scores": {"arc": 0.5}}, {"task_scores": {"arc": 0.9}}, {"task_scores": {}}),
        ("betterThanPrevious", {}, {"previous_loss_ratio": 0.9999}, {"previous_loss_ratio": 1.0}),
    ],
)
def test_a_rule_passes_up_to_its_limit(
    name: str, rules: dict[str, Any], passing: dict[str, Any], failing: dict[str, Any]
) -> None:
    assert judge(rules, **passing)[name] is True
    outcomes = judge(rules, **failing)
    assert [rule for rule, ok in outcomes.items() if not ok] == [name]


def test_only_rules_that_are_set_are_judged() -> None:
    assert judge({}) == {"maxLossRatio": True, "betterThanPrevious": True}
    assert judge({}, previous_loss_ratio=None) == {"maxLossRatio": True}
    assert judge({"better_than_previous": False}, previous_loss_ratio=2.0) == {"maxLossRatio": True}


def test_missing_scores_fail() -> None:
    outcomes = judge({"min_exact_match": 0, "min_rouge_l": 0}, scores=None)
    assert not outcomes["minExactMatch"] and not outcomes["minRougeL"]
    failed = gate.judge(GateRules(min_rouge_l=0.0), dataclasses.replace(GOOD, scores=None))
    assert gate.reason(failed) == "minRougeL is not measured, required >= 0"


def test_the_reason_names_each_failed_rule() -> None:
    rules = GateRules(max_loss_ratio=0.5, confident=True, min_rouge_l=0.9, max_regressions=0.5)
    outcomes = gate.judge(rules, dataclasses.replace(GOOD, loss_ratio=math.inf))
    assert gate.reason(outcomes) == (
        "maxLossRatio is not measured, required < 0.5; confident is 0.6, required < 0.5; "
        "minRougeL is 0.7, required >= 0.9"
    )
    assert gate.reason(gate.judge(GateRules(), GOOD)) == ""
