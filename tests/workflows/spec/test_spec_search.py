"""``pipeline.search``: what is accepted, what each broken rule reports at its line, and the trials that follow."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace_sample import GOOD, INFERENCE, PIPELINE, TUNING, check_broken, problems, write

from workflows.errors import InvalidInput
from workflows.load_plans import load_plans
from workflows.spec import search as searches
from workflows.spec.findings import Findings
from workflows.spec.search import PipelineSearch
from workflows.spec.search_rules import check
from workflows.spec.source import Source


def searched(text: str) -> str:
    return f"{PIPELINE}  search: {{{text}}}  # <--\n"


BROKEN = {
    "no parameter": ("method: grid", "", "no parameter to search"),
    "unknown": ("parameters: {momentum: [1]}", "parameters.momentum", "that can be searched"),
    "too low": ("parameters: {rank: [8, 0]}", "parameters.rank[1]", "must be greater than or equal to 1, not 0"),
    "too high": ("parameters: {learningRate: [1.0e-4, 2]}", "parameters.learningRate[1]", "less than or equal to 1"),
    "no number": ("parameters: {rank: [many]}", "parameters.rank[0]", "must be an integer, not 'many'"),
    "boolean": ("parameters: {rank: [true]}", "parameters.rank[0]", "must be a number, not true"),
    "fraction": ("parameters: {batchSize: [1.5]}", "parameters.batchSize[0]", "must be an integer, not 1.5"),
    "twice": ("parameters: {rank: [8, 16, 8.0]}", "parameters.rank[2]", "is a duplicate"),
    "empty": ("parameters: {rank: []}", "parameters.rank", "at least one value"),
    "scalar": ("parameters: {rank: 8}", "parameters.rank", "must be a list of values"),
    "range in a grid": ("parameters: {rank: {min: 8, max: 16}}", "parameters.rank", "a grid requires a list"),
    "no max": ("method: random, trials: 2, parameters: {rank: {min: 8}}", "parameters.rank", "max is missing"),
    "swapped": (
        "method: random, trials: 2, parameters: {alpha: {min: 8, max: 4}}",
        "parameters.alpha",
        "min (8) is greater than max (4)",
    ),
    "end out of bounds": (
        "method: random, trials: 2, parameters: {rank: {min: 0, max: 4}}",
        "parameters.rank.min",
        "must be greater than or equal to 1",
    ),
    "scale": (
        "method: random, trials: 2, parameters: {rank: {min: 1, max: 4, scale: cubic}}",
        "parameters.rank.scale",
        "must be linear or log, not 'cubic'",
    ),
    "log of zero": (
        "method: random, trials: 2, parameters: {dropout: {min: 0, max: 0.5, scale: log}}",
        "parameters.dropout.min",
        "must be greater than 0 with scale log",
    ),
    "unknown key": (
        "method: random, trials: 2, parameters: {rank: {min: 1, max: 4, step: 2}}",
        "parameters.rank.step",
        "unknown field",
    ),
    "no trials": ("method: random, parameters: {rank: [1, 2]}", "", "trials is required with method random"),
    "trials of a grid": ("trials: 2, parameters: {rank: [1, 2]}", "trials", "has no effect with method grid"),
    "too many trials": (
        "method: random, trials: 3, parameters: {rank: [1, 2]}",
        "trials",
        "is greater than the number of combinations (2)",
    ),
    "reduction": (
        "method: random, trials: 2, reduction: 3, parameters: {rank: [1, 2]}",
        "reduction",
        "has no effect with method random",
    ),
    "large grid": (
        f"parameters: {{rank: {list(range(1, 12))}, alpha: {list(range(1, 11))}}}",
        "parameters",
        "has 110 combinations (limit 100)",
    ),
    "parallel": ("parallel: 0, parameters: {rank: [1]}", "parallel", "must be greater than or equal to 1"),
    "method": ("method: bayes, parameters: {rank: [1]}", "method", "must be 'grid', 'random' or 'halving'"),
}


@pytest.mark.parametrize(("text", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_invalid_search_is_the_only_problem_at_its_line(tmp_path, text, path, words):
    check_broken(tmp_path, PIPELINE, searched(text), f"pipeline.search.{path}".rstrip("."), words)


def test_all_problems_are_reported_at_their_lines(tmp_path):
    text = GOOD + (
        "  search:\n    method: random\n    parameters:\n      learning_rate: [1.0e-4]\n"
        "      rank:\n        - 0\n        - x\n      lora_alpha: [1]\n"
    )
    lines = text.splitlines()
    found = {problem.path: (problem.line, problem.fix) for problem in problems(write(tmp_path, text))}
    place = "pipeline.search.parameters"
    assert found[f"{place}.learning_rate"] == (
        lines.index("      learning_rate: [1.0e-4]") + 1,
        "did you mean learningRate?",
    )
    assert found[f"{place}.rank[0]"][0] == lines.index("        - 0") + 1
    assert found[f"{place}.rank[1]"][0] == lines.index("        - x") + 1
    assert found[f"{place}.lora_alpha"][1] == "did you mean alpha?"
    assert "pipeline.search" in found


@pytest.mark.parametrize("parameter", searches.parameters())
def test_every_parameter_has_the_bounds_of_its_setting(tmp_path, parameter):
    """The message is that of the setting itself."""
    with pytest.raises(InvalidInput) as of_setting:
        load_plans(str(write(tmp_path, GOOD)), [f"tuning.{parameter}=-7"])
    [expected] = of_setting.value.problems
    found = Findings(Source("file"))
    check(PipelineSearch(parameters={parameter: [-7]}), "search", found)
    [problem] = found.errors
    assert problem.path == f"search.parameters.{parameter}[0]"
    assert problem.message == expected.message


def test_a_search_requires_tuning(tmp_path):
    pipeline = "pipeline:\n  search: {parameters: {rank: [8]}}  # <--\n"
    check_broken(tmp_path, TUNING + INFERENCE + PIPELINE, INFERENCE + pipeline, "pipeline.search", "without tuning")


def plan_problems(folder, search, flags=(), more=""):
    text = GOOD.replace("    evalSplit: 0.1\n", f"    evalSplit: 0.1\n  search: {search}\n") + more
    with pytest.raises(InvalidInput) as caught:
        load_plans(str(write(folder, text)), flags)
    line = next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith("  search:"))
    assert {problem.line for problem in caught.value.problems} == {line}
    return {problem.path: problem.message for problem in caught.value.problems}


def test_a_search_uses_one_node(tmp_path):
    text = GOOD.replace("  instanceType:", "  count: 2\n  instanceType:") + "  search: {parameters: {rank: [8, 16]}}\n"
    with pytest.raises(InvalidInput) as caught:
        load_plans(str(write(tmp_path, text)))
    [problem] = caught.value.problems
    assert (problem.path, problem.fix) == ("resource.count", "write count: 1, or remove pipeline.search")
    assert problem.message.startswith("several nodes are not supported for a search")


def test_trials_must_share_the_gpus_equally(tmp_path):
    found = plan_problems(tmp_path, "{parallel: 2, parameters: {rank: [8, 16]}}")
    assert found == {"pipeline.search.parallel": "2 trials cannot share the 1 GPU of a node equally"}
    text = GOOD + "  search: {parallel: 2, parameters: {rank: [8, 16]}}\n"
    [plan] = load_plans(str(write(tmp_path, text)), local=True)
    assert plan.search.parallel == 2, "the GPUs of the instance type do not matter on this machine"
    [plan] = load_plans(str(write(tmp_path, text)), ["resource.instanceType=Standard_NC48ads_A100_v4"])
    assert plan.resource.gpus == 2


def test_a_flag_cannot_set_what_the_search_sets(tmp_path, monkeypatch):
    found = plan_problems(tmp_path, "{parameters: {rank: [8, 16]}}", ["tuning.rank=4"])
    assert found == {"pipeline.search.parameters.rank": "overrides --set tuning.rank"}
    monkeypatch.setenv("ARGOTUNE_TUNING__RANK", "4")
    found = plan_problems(tmp_path, "{parameters: {rank: [8, 16]}}")
    assert found == {"pipeline.search.parameters.rank": "overrides ARGOTUNE_TUNING__RANK"}


def test_settings_without_effect_are_rejected(tmp_path):
    search = "{parameters: {beta: [0.1], epochs: [1, 2], maxSteps: [4, 8]}}"
    assert plan_problems(tmp_path, search) == {
        "pipeline.search.parameters.beta": "has no effect with objective sft",
        "pipeline.search.parameters.epochs": "has no effect with a maximum of steps",
    }


def test_held_out_rows_are_required(tmp_path):
    found = plan_problems(tmp_path, "{parameters: {rank: [8, 16]}}", ["data.evalSplit=0"])
    assert found == {"pipeline.search": "requires held-out rows, to compare the trials"}


def test_a_value_of_the_configmap_that_the_search_overrides_is_a_warning(tmp_path, capsys):
    config = (
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: training}\ndata:\n  training_config.yaml: |\n"
        "    training_config: {LoraConfig: {r: 8}}\n"
    )
    text = GOOD.replace("  method: qlora\n", "  method: qlora\n  config: training\n")
    load_plans(str(write(tmp_path, text + "  search: {parameters: {rank: [8, 16]}}\n" + config)))
    assert "pipeline.search.parameters.rank: overrides LoraConfig.r of the ConfigMap" in capsys.readouterr().err


def test_flags_change_a_search_and_are_checked(tmp_path):
    file = str(write(tmp_path, GOOD + "  search: {parameters: {rank: [8, 16]}}\n"))
    [plan] = load_plans(file, ['search.parameters={"alpha": [8, "1e1"]}'])
    assert [trial.values for trial in searches.trials(plan.search)] == [{"alpha": "8"}, {"alpha": "10"}]
    with pytest.raises(InvalidInput) as caught:
        load_plans(file, ['search.parameters={"alpha": [0], "x": [1]}', "search.trials=2"])
    assert {(problem.file, problem.path) for problem in caught.value.problems} == {
        ("--set", "search.parameters.alpha[0]"),
        ("--set", "search.parameters.x"),
        ("--set", "search.trials"),
    }


def test_a_grid_has_every_combination_in_the_order_of_the_file():
    search = PipelineSearch(parameters={"learningRate": [1e-4, "2e-4"], "rank": [8, 16]})
    assert [trial.item for trial in searches.trials(search)] == [
        {"candidate": "trial-1", "learning-rate": "0.0001", "rank": "8"},
        {"candidate": "trial-2", "learning-rate": "0.0001", "rank": "16"},
        {"candidate": "trial-3", "learning-rate": "0.0002", "rank": "8"},
        {"candidate": "trial-4", "learning-rate": "0.0002", "rank": "16"},
    ]


def test_a_sample_depends_on_the_seed_only():
    parameters = {"learningRate": {"min": 1e-5, "max": 1e-3, "scale": "log"}, "rank": [8, 16]}
    first = [
        searches.trials(PipelineSearch(method="random", trials=8, seed=seed, parameters=parameters))
        for seed in (1, 1, 2)
    ]
    assert first[0] == first[1] != first[2]
    assert first[0][0].values == {"learning-rate": "1.86e-05", "rank": "16"}, "the same on every version of Python"


@given(
    low=st.floats(1e-6, 1), high=st.floats(1e-6, 1), scale=st.sampled_from(["linear", "log"]), seed=st.integers(0, 99)
)
def test_samples_are_distinct_and_in_their_range(low, high, scale, seed):
    low, high = sorted((low, high))
    space = {"min": low, "max": high, "scale": scale}
    search = PipelineSearch(
        method="random", trials=3, seed=seed, parameters={"learningRate": space, "rank": [1, 2, 3]}
    )
    values = [trial.values for trial in searches.trials(search)]
    assert len({tuple(value.items()) for value in values}) == 3
    # Values are written with 12 digits.
    assert all(low * (1 - 1e-9) <= float(value["learning-rate"]) <= high * (1 + 1e-9) for value in values)


@given(trials=st.integers(1, 100), reduction=st.integers(2, 10))
def test_each_rung_divides_the_trials_and_multiplies_their_steps(trials, reduction):
    space = {"min": 1e-6, "max": 1, "scale": "log"}
    search = PipelineSearch(method="halving", trials=trials, reduction=reduction, parameters={"learningRate": space})
    rungs = searches.rungs(search)
    assert (rungs[0].trials, rungs[-1].trials, rungs[-1].share) == (trials, 1, 1)
    for rung, following in itertools.pairwise(rungs):
        assert following.trials == max(1, rung.trials // reduction)
        assert math.isclose(following.share, reduction * rung.share, rel_tol=0.01)
    assert 1 <= searches.num_trainings(search) <= trials


def test_halving_costs_less_than_training_every_trial():
    search = PipelineSearch(method="halving", trials=8, parameters={"rank": list(range(1, 9))})
    assert [(rung.trials, rung.share) for rung in searches.rungs(search)] == [(8, 0.125), (4, 0.25), (2, 0.5), (1, 1)]
    assert searches.num_trainings(search) == 2.5
