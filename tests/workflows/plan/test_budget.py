"""``pipeline.budget``: its sources, its hours, and the comparison with the estimate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plan_samples import PLANS, compiled
from workspace_sample import GOOD, INFERENCE, TUNING, write

from workflows import cli
from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan
from workflows.plan.nodes import gpu_nodes

PRICE = 3.673
"""USD per hour of the sample's instance type."""


@pytest.fixture(autouse=True)
def _no_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def plan(folder: Path, budget: str = "", *sets: str, site: str = "", text: str = GOOD, local: bool = False) -> Plan:
    profile = folder / "site.yaml"
    profile.write_text(site)
    file = write(folder, text + (f"  budget: {budget}\n" if budget else ""))
    [found] = load_plans(str(file), sets, str(profile), local=local)
    return found


def parameter(document: dict[str, Any]) -> str:
    return next(
        item["value"] for item in document["spec"]["arguments"]["parameters"] if item["name"] == "budget-hours"
    )


def test_every_source_sets_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(tmp_path).budget_hours == 0
    assert plan(tmp_path, site="budget: {hours: 7}").budget_hours == 7
    assert plan(tmp_path, "{hours: 6}", site="budget: {hours: 7}").budget_hours == 6
    monkeypatch.setenv("ARGOTUNE_BUDGET__HOURS", "5")
    assert plan(tmp_path, "{hours: 6}").budget_hours == 5
    assert plan(tmp_path, "{hours: 6}", "budget.hours=4").budget_hours == 4


def test_usd_are_hours_at_the_price_of_the_nodes(tmp_path: Path) -> None:
    assert plan(tmp_path, "{usd: 36.73}").budget_hours == pytest.approx(10)
    assert plan(tmp_path, "{usd: 36.73, hours: 3}").budget_hours == 3
    assert plan(tmp_path, "{usd: 36.73, hours: 30}").budget_hours == pytest.approx(10)
    assert plan(tmp_path, "{usd: 10}", "resource.usdPerHour=2").budget_hours == 5
    assert plan(tmp_path, "{usd: 10}", site="prices: {Standard_NC24ads_A100_v4: 2.5}").budget_hours == 4


def test_usd_bound_the_dearest_node_that_the_run_can_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Spot nodes and the first instance type can be unavailable."""
    spot = plan(tmp_path, "{usd: 36.73}", "nodes.spot=true")
    assert (spot.resource.usd_per_hour, spot.budget_hours) == (PRICE, pytest.approx(10))
    assert spot.origin("resource.usdPerHour").endswith(": Standard_NC24ads_A100_v4, on demand")
    two = 'nodes.fallbackInstanceTypes=["Standard_NC48ads_A100_v4"]'
    fallback = plan(tmp_path, "{usd: 36.73}", two)
    assert (fallback.resource.usd_per_hour, fallback.budget_hours) == (2 * PRICE, pytest.approx(5))
    assert fallback.origin("resource.usdPerHour").endswith(": Standard_NC48ads_A100_v4, on demand")
    assert gpu_nodes(fallback).is_maximum and not gpu_nodes(plan(tmp_path)).is_maximum
    sets = ["--set", "nodes.spot=true", "--set", two]
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--rows", "100", *sets]) == 0
    output = capsys.readouterr().out
    assert "at most" in output and "which a budget counts" in output
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--rows", "100", *sets, "-o", "json"]) == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    assert (estimate["maxUsdPerHour"], estimate["spotUsdPerHour"]) == (2 * PRICE, 0.444)


def test_a_fallback_without_a_price_has_no_bound(tmp_path: Path) -> None:
    fallback = 'nodes.fallbackInstanceTypes=["Standard_ND96isr_H200_v5"]'
    with pytest.raises(InvalidInput) as caught:
        plan(tmp_path, "{usd: 10}", fallback)
    problem = next(problem for problem in caught.value.problems if problem.path == "pipeline.budget.usd")
    assert problem.message == "cannot be compared: the price of Standard_ND96isr_H200_v5 is unknown"
    assert "prices: {Standard_ND96isr_H200_v5: USD}" in problem.fix
    priced = plan(tmp_path, "{usd: 90}", fallback, site="prices: {Standard_ND96isr_H200_v5: 90}")
    assert priced.budget_hours == 1


def test_usd_need_a_price(tmp_path: Path) -> None:
    existing = GOOD.replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    with pytest.raises(InvalidInput) as caught:
        plan(tmp_path, "{usd: 10}", text=existing)
    [problem] = caught.value.problems
    assert (problem.path, bool(problem.line)) == ("pipeline.budget.usd", True)
    assert problem.message == "cannot be compared: the price of the existing nodes is unknown"
    assert plan(tmp_path, "{usd: 10}", "resource.usdPerHour=4", text=existing).budget_hours == 2.5


def test_usd_have_no_effect_locally_without_a_price(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    existing = GOOD.replace("  instanceType: Standard_NC24ads_A100_v4\n", "")
    assert plan(tmp_path, "{usd: 10}", text=existing, local=True).budget_hours == 0
    assert "pipeline.budget.usd: has no effect locally" in capsys.readouterr().err


def test_a_budget_needs_a_tuning(tmp_path: Path) -> None:
    serving = GOOD.replace(TUNING, "").replace("  data:\n    evalSplit: 0.1\n", "")
    assert INFERENCE in serving
    with pytest.raises(InvalidInput, match=r"pipeline.budget: has no effect without tuning"):
        plan(tmp_path, "{hours: 1}", text=serving)
    with pytest.raises(InvalidInput, match=r"budget\.hours is set by flag"):
        plan(tmp_path, "", "budget.hours=1", text=serving.replace("pipeline:\n", ""))
    assert "budget-hours" not in json.dumps(compiled(PLANS["inference only"]))


def test_the_budget_is_a_parameter_of_the_gpu_steps() -> None:
    document = compiled(PLANS["everything"] | {"budget.hours": 1.5})
    assert parameter(document) == "1.5"
    templates = {template["name"]: template for template in document["spec"]["templates"]}
    for name in ("tune", "evaluate", "report"):
        words = templates[name]["container"]["args"]
        assert words[words.index("--budget-hours") + 1] == "{{inputs.parameters.budget-hours}}"
    other = compiled(PLANS["everything"] | {"budget.usd": 100, "resource.usdPerHour": 2})
    assert parameter(other) == "50"


def test_documents_differ_only_in_the_parameter() -> None:
    """So that a run can be resumed with another budget."""
    first, second = (compiled(PLANS["everything"] | {"budget.hours": hours}) for hours in (1, 2))
    for document in (first, second):
        for item in document["spec"]["arguments"]["parameters"]:
            if item["name"] == "budget-hours":
                del item["value"]
        for template in document["spec"]["templates"]:
            for item in template.get("inputs", {}).get("parameters", []):
                if item["name"] == "budget-hours":
                    item.pop("default", None)
    assert first == second


def test_limits_are_combined() -> None:
    budget = merge([Layer("test", {"name": "a", "budget.hours": 5, "budget.usd": 12, "resource.count": 2})])
    assert budget.budget_hours == 5
    assert (
        budget.model_copy(update={"resource": budget.resource.model_copy(update={"usd_per_hour": 2})}).budget_hours
        == 3
    )


def test_plan_compares_the_estimate_with_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write(tmp_path, GOOD + "  budget: {usd: 1}\n"))
    assert cli.main(["plan", file]) == 0
    captured = capsys.readouterr()
    assert "budget" in captured.out and "exceeds" not in captured.out + captured.err
    assert cli.main(["plan", file, "--rows", "100000"]) == 0
    captured = capsys.readouterr()
    assert "hours of tune and evaluate, 1.00 USD; the estimate exceeds it" in captured.out
    assert "pipeline.budget.usd: 1 USD (0.27 hours) is less than the estimate (" in captured.err
    assert cli.main(["plan", file, "--rows", "10", "--set", "budget.usd=100", "-o", "json"]) == 0
    captured = capsys.readouterr()
    assert "budget" not in captured.err
    estimate = json.loads(captured.out)["estimate"]
    assert (estimate["budgetUsd"], estimate["budgetHours"]) == (100, pytest.approx(100 / PRICE, abs=1e-3))


def test_validate_warns_if_the_steps_are_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(tmp_path, "{hours: 0.3}", "tuning.maxSteps=100000")
    error = capsys.readouterr().err
    assert "workspace.yaml:" in error and "pipeline.budget.hours: 0.3 hours is less than the estimate" in error


def test_another_price_is_that_of_the_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(write(tmp_path, GOOD)), "--set", "resource.usdPerHour=9.5", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["usdPerHour"] == 9.5
