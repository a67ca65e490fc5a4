"""``benchmarks/tuning``: ratios of the rounds, and results that an interruption left. No training runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TUNING = Path(__file__).parents[1] / "benchmarks" / "tuning"
SAME = {"machine": "two cores", "code": "a1"}


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tuning_{name}", TUNING / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


results = load("results")


def result(contender: str, number: int, speed: float, row_set: str = "short", **more: Any) -> dict[str, Any]:
    run = {"set": row_set, "round": number, "contender": contender, "rows": 4, **SAME}
    return run | {"speed": speed, "peak_gib": 2.0, "losses": [3.0, 2.0], "versions": {"torch": "2"}} | more


def failed(contender: str, number: int, error: str) -> dict[str, Any]:
    return {"set": "short", "round": number, "contender": contender, "rows": 4, "error": error, **SAME}


def test_ratios_pair_the_runs_of_a_round():
    runs = [result("argotune", 1, 300), result("slow", 1, 100), result("argotune", 2, 200), result("slow", 2, 100)]
    assert results.ratios([*runs, result("argotune", 3, 900)], "argotune", "slow") == [3.0, 2.0]


def test_a_table_has_median_minimum_and_maximum():
    runs = [result("argotune", number, 300) for number in (1, 2, 3)]
    runs += [result("slow", number, speed) for number, speed in enumerate((100, 150, 60), start=1)]
    table = results.tables(runs, ["short"], ["slow", "argotune"])
    assert "| slow | 3 | 100.0 (60.0 to 150.0) | 3.00x (2.00 to 5.00) | 2.0 |" in table
    assert "| argotune | 3 | 300.0 (300.0 to 300.0) | 1.00x (1.00 to 1.00) | 2.0 |" in table


def test_each_set_has_its_own_runs():
    runs = [result("argotune", 1, 300), result("argotune", 1, 100, "long")]
    short, long = results.tables(runs, ["short", "long"], ["argotune"]).split("## long")
    assert "300.0" in short and "100.0" not in short
    assert "100.0" in long and "300.0" not in long


def test_a_contender_that_does_not_run_is_named_with_its_last_error():
    runs = [failed("other", 1, "no GPU"), failed("other", 1, "no CPU either"), result("argotune", 1, 300)]
    table = results.tables(runs, ["short"], ["other", "argotune"])
    assert "other does not run: no CPU either" in table
    assert "| other |" not in table


def test_the_same_settings_are_compared_in_time_and_losses():
    plain, ours = results.SAME_SETTINGS
    runs = [result(plain, 1, 102), result(ours, 1, 100, losses=[3.0, 2.5])]
    table = results.tables(runs, ["short"], [plain, ours])
    assert f"{ours}: +2.0% (+2.0% to +2.0%) time per token than {plain}" in table
    assert "loss curves 5.0e-01" in table


def test_contenders_alternate_and_finished_runs_are_not_repeated():
    found = [result("a", 1, 1), failed("b", 1, "killed")]
    assert results.missing(found, ["short"], 2, ["a", "b"]) == [
        ("short", 1, "b"),
        ("short", 2, "a"),
        ("short", 2, "b"),
    ]


def test_results_continue_after_a_line_that_was_cut_short(tmp_path):
    file = tmp_path / "runs" / "tuning.jsonl"
    results.append(file, result("a", 1, 1))
    with file.open("a") as lines:
        lines.write('{"set": "sho')
    found = results.read(file, SAME, {"short": 4})
    results.append(file, result("b", 1, 2))
    assert [run["contender"] for run in results.read(file, SAME, {"short": 4})] == ["a", "b"]
    assert results.missing(found, ["short"], 1, ["a", "b"]) == [("short", 1, "b")]


@pytest.mark.parametrize(
    ("conditions", "rows", "message"),
    [
        (SAME | {"machine": "64 cores"}, {"short": 4}, "machine is 'two cores', this run has '64 cores'"),
        (SAME | {"code": "b2"}, {"short": 4}, "code is 'a1', this run has 'b2'"),
        (SAME, {"short": 64}, "rows is 4, this run has 64"),
    ],
)
def test_results_under_other_conditions_are_not_mixed(tmp_path, conditions, rows, message):
    file = tmp_path / "tuning.jsonl"
    results.append(file, result("a", 1, 1))
    with pytest.raises(SystemExit, match=message):
        results.read(file, conditions, rows)


def test_every_contender_has_its_script_and_requirements(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script extends it
    compare = load("compare")
    for contender in compare.CONTENDERS.values():
        assert (compare.SCRIPTS / f"{contender.script}.py").is_file()
        assert not contender.venv or (TUNING / "requirements" / f"{contender.venv}.txt").is_file()
    assert {results.OURS, *results.SAME_SETTINGS} <= set(compare.CONTENDERS)


def test_a_profile_has_the_share_of_each_kind(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # the script extends it
    operations = {"aten::addmm": 5.0, "aten::_scaled_dot_product_flash_attention_for_cpu": 1.0, "aten::silu": 2.0}
    shares = load("step_profile").shares(operations, 10.0)
    assert shares == {
        "matrix products": 0.5,
        "activations, norms and others": 0.2,
        "Python and waiting": 0.2,
        "attention": 0.1,
    }
