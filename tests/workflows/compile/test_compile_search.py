"""The DAG of a search: its trials, rungs, GPUs and parameters."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plan_samples import BASE, EVALUATION, HALVING, PLANS, ROLLOUT, SCHEDULE, SEARCH, TUNING, compiled

from workflows import lint
from workflows.compile import emit
from workflows.estimate import estimate
from workflows.plan.layers import Layer, merge
from workflows.plan.model import Plan

RUN = BASE | TUNING | EVALUATION | ROLLOUT


def template(document: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [entry for entry in document["spec"]["templates"] if entry["name"] == name]
    return dict(found)


def tasks(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {task["name"]: task for task in template(document, name)["dag"]["tasks"]}


def arguments(task: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["value"] for item in task["arguments"]["parameters"]}


def plan(values: dict[str, Any]) -> Plan:
    return merge([Layer("test", values)])


@pytest.mark.parametrize("values", [PLANS["search"], PLANS["retraining with a search"]])
def test_the_linter_accepts_a_search(values: dict[str, Any]) -> None:
    found = lint.lint([("", emit.to_yaml(compiled(values)))])
    assert [str(finding.problem) for finding in found.errors] == []


def test_trials_fan_out_and_the_best_is_promoted() -> None:
    document = compiled(RUN | SEARCH | {"search.parallel": 2, "resource.gpus": 4})
    search = template(document, "search")
    assert search["parallelism"] == 2
    assert search["dag"]["failFast"] is False, "a failed trial does not stop the others"
    trial, promote = tasks(document, "search").values()
    assert trial["withItems"][1] == {"candidate": "trial-2", "learning-rate": "0.0001", "dropout": "0.1"}
    assert arguments(trial)["dropout"] == "{{item.dropout}}"
    assert promote["depends"] == "trial.AnySucceeded"
    assert arguments(promote) == {"candidates": "{{tasks.trial.outputs.parameters}}"}
    main = tasks(document, "main")
    assert main["search"]["depends"] == "provision && download"
    assert main["package"]["depends"] == "search" and "when" not in main["package"]
    assert {"tune", "evaluate"} & main.keys() == set()


@pytest.mark.parametrize("parallel", [1, 2])
def test_concurrent_trials_run_on_one_node(parallel: int) -> None:
    """The work volume is ReadWriteOnce: a pod on another node would wait for it, with its GPUs."""
    document = compiled(
        RUN | SEARCH | {"search.parallel": parallel, "resource.gpus": 4, "nodes.provider": "autoscaler"}
    )
    for name in ("tune", "evaluate"):
        found = template(document, name)
        label = found.get("metadata", {}).get("labels", {}).get("argotune.dev/search")
        pods = found.get("affinity", {}).get("podAffinity", {})
        if parallel == 1:
            assert not label and not pods
            continue
        [term] = pods["requiredDuringSchedulingIgnoredDuringExecution"]
        assert (
            term["labelSelector"]["matchLabels"]
            == {"argotune.dev/search": label}
            == {"argotune.dev/search": "{{workflow.uid}}"}
        )
        assert term["topologyKey"] == "kubernetes.io/hostname"


def test_a_trial_has_its_share_of_the_gpus_and_the_semaphore() -> None:
    document = compiled(RUN | SEARCH | {"search.parallel": 2, "resource.gpus": 4})
    for name in ("tune", "evaluate"):
        step = template(document, name)
        assert step["container"]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
        assert step["synchronization"]["semaphores"][0]["configMapKeyRef"]["key"] == "gpu"


def test_each_trial_writes_to_its_directory_with_its_settings() -> None:
    document = compiled(RUN | SEARCH)
    words = template(document, "tune")["container"]["args"]
    flags = dict(zip(words[::2], words[1::2], strict=True))
    assert flags["--work"] == "/mnt/work/candidates/{{inputs.parameters.candidate}}"
    assert flags["--dropout"] == "{{inputs.parameters.dropout}}"
    given = arguments(tasks(document, "trial")["tune"])
    assert given["learning-rate"] == "{{inputs.parameters.learning-rate}}"
    assert given["rank"] == "{{workflow.parameters.rank}}", "other settings can be set at submission"
    names = {item["name"] for item in document["spec"]["arguments"]["parameters"]}
    assert "rank" in names and "learning-rate" not in names


def test_survivors_of_a_rung_continue() -> None:
    document = compiled(RUN | HALVING)
    dag = tasks(document, "search")
    assert list(dag) == ["rung-1", "prune-1", "rung-2", "prune-2", "rung-3", "promote"]
    assert [arguments(dag[f"rung-{n}"])["stop-after"] for n in (1, 2, 3)] == ["0.25", "0.5", "1"]
    assert len(dag["rung-1"]["withItems"]) == 4
    first, second = arguments(dag["prune-1"]), arguments(dag["prune-2"])
    assert json.loads(first["trials"]) == dag["rung-1"]["withItems"]
    assert (first["keep"], second["keep"]) == ("2", "1")
    assert second["trials"] == dag["rung-2"]["withParam"] == "{{tasks.prune-1.outputs.parameters.survivors}}"
    assert [dag[name]["depends"] for name in list(dag)[1:]] == [
        "rung-1.AnySucceeded", "prune-1", "rung-2.AnySucceeded", "prune-2", "rung-3.AnySucceeded",
    ]  # fmt: skip


def test_a_scheduled_search_compares_with_the_live_adapter() -> None:
    document = compiled(BASE | TUNING | EVALUATION | SCHEDULE | SEARCH)
    assert arguments(tasks(document, "main")["search"])["previous"] == "{{tasks.check.outputs.parameters.previous}}"
    assert arguments(tasks(document, "search")["trial"])["previous"] == "{{inputs.parameters.previous}}"
    assert arguments(tasks(document, "trial")["evaluate"])["previous"] == "{{inputs.parameters.previous}}"
    words = template(document, "check")["container"]["args"]
    assert json.loads(words[words.index("--search") + 1])[0]["candidate"] == "trial-1"


def test_an_approval_follows_the_search() -> None:
    main = tasks(compiled(RUN | SEARCH | {"approval": True}), "main")
    assert main["approval"]["depends"] == "search"
    assert main["package"]["depends"] == "approval.Succeeded"


def test_the_estimate_has_the_memory_of_the_largest_trial_and_the_time_of_all() -> None:
    size = {"resource.instanceType": "Standard_NC48ads_A100_v4", "resource.gpus": 2, "tuning.maxSteps": 100}
    run = RUN | size
    single = estimate(plan(run | {"tuning.processes": 1}))
    grid = {"search.parameters": {"rank": [8, 64], "seed": [1, 2]}}
    searched = estimate(plan(run | grid | {"search.parallel": 2}))
    assert single.training and searched.training and single.time and searched.time
    assert searched.training.rank == 64 and searched.training.processes == 1
    assert searched.trials == 4
    assert searched.time.training_hours == pytest.approx(4 / 2 * (single.time.training_hours or 0), rel=0.05)
    halving = estimate(plan(run | HALVING | {"search.parallel": 2}))
    assert halving.time and (halving.time.training_hours or 0) < (searched.time.training_hours or 0)
    steps = estimate(plan(run | {"search.parameters": {"maxSteps": [10, 200]}, "tuning.processes": 1}))
    assert steps.time and steps.time.training_hours == pytest.approx(4 * (single.time.training_hours or 0), rel=0.05)
