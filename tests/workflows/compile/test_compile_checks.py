"""Checks of settings and parameters, before anything that costs."""

import json
from typing import Any

import pytest
from plan_samples import PLANS, compiled

from steps.preflight.settings import Settings as Preflight


def template(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in document["spec"]["templates"] if item["name"] == name)


def tasks(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in template(document, "main")["dag"]["tasks"]}


def flags(document: dict[str, Any], name: str) -> dict[str, str]:
    return dict(zip(*[iter(template(document, name)["container"]["args"])] * 2, strict=True))


ARGUMENTS = {"tuning.trainingArguments": {"optim": "sgd"}}


def test_arguments_of_libraries_are_checked_before_anything_that_costs():
    document = compiled(PLANS["everything"] | ARGUMENTS)
    dag = tasks(document)
    assert "depends" not in dag["dryrun"]
    assert dag["provision"]["depends"] == dag["download"]["depends"] == "preflight && dryrun"
    container = template(document, "dryrun")["container"]
    assert container["image"] == template(document, "tune")["container"]["image"]
    assert "limits" not in container["resources"], "no GPU"
    assert json.loads(flags(document, "dryrun")["--training-arguments"]) == {"optim": "sgd"}
    assert flags(document, "dryrun")["--epochs"] == "{{inputs.parameters.epochs}}"


@pytest.mark.parametrize("name", ["everything", "retraining"])
def test_the_base_model_is_fetched_while_the_nodes_come_up(name: str):
    document = compiled(PLANS[name] | {"storage.fetchModel": True})
    dag, container = tasks(document), template(document, "fetch")["container"]
    assert dag["fetch"]["depends"] == dag["provision"]["depends"]
    succeeded = ".Succeeded" if name == "retraining" else ""
    assert f"fetch{succeeded}" in dag["tune"]["depends"].split(" && ")
    assert "limits" not in container["resources"] and "nodeSelector" not in template(document, "fetch"), "a CPU node"
    tune = template(document, "tune")["container"]
    assert container["image"] == tune["image"]
    home = next(item for item in tune["env"] if item["name"] == "HF_HOME")
    assert home in container["env"]
    own = flags(document, "tune")
    assert {key: own[key] for key in own if key in ("--model", "--preset", "--revision")}.items() <= flags(
        document, "fetch"
    ).items()


def test_by_default_tune_fetches_the_base_model():
    assert "fetch" not in tasks(compiled(PLANS["everything"]))


def test_retraining_checks_arguments_of_libraries_only_if_there_is_a_change():
    dag = tasks(compiled(PLANS["retraining"] | ARGUMENTS))
    assert dag["dryrun"]["when"] == dag["preflight"]["when"]
    assert dag["provision"]["depends"] == "preflight.Succeeded && dryrun.Succeeded"


def test_without_arguments_of_libraries_there_is_no_pod_to_check_them():
    without = {"tuning.trainingArguments": {}, "tuning.loraConfig": {}, "tuning.quantizationConfig": {}}
    assert "dryrun" not in tasks(compiled(PLANS["everything"] | without))


@pytest.mark.parametrize("name", ["everything", "retraining"])
def test_preflight_gets_every_parameter_that_a_user_can_change(name):
    document = compiled(PLANS[name])
    parameters = {item["name"] for item in document["spec"]["arguments"]["parameters"]}
    inputs = {item["name"] for item in template(document, "preflight")["inputs"]["parameters"]}
    assert inputs == parameters - ({"data-urls"} if name == "retraining" else set())
    assert inputs - {"data-urls"} == set(Preflight.PARAMETERS.values()) - {"data-urls"}


CLAIM_VOLUMES = {
    "data.urls": [],
    "data.volume": {"persistentVolumeClaim": {"claimName": "rows", "readOnly": True}},
    "output.volume": {"persistentVolumeClaim": {"claimName": "adapters"}},
}


@pytest.mark.parametrize(("plan", "first"), [("tuning only", ["preflight"]), ("retraining", ["download"])])
def test_claims_are_checked_before_a_pod_mounts_them(plan: str, first: list[str]):
    """A pod with a missing claim would be Pending until its time limit: claims mounts none of them."""
    document = compiled(PLANS[plan] | CLAIM_VOLUMES | {"serviceAccounts": {"preflight": "reader"}})
    dag = tasks(document)
    assert "depends" not in dag["claims"]
    assert [name for name, task in dag.items() if task.get("depends") == "claims"] == first
    assert json.loads(flags(document, "claims")["--claims"]) == ["adapters", "rows"]
    volumes = {item["name"] for item in template(document, "claims")["container"]["volumeMounts"]}
    assert volumes == {"scratch", "tmp"}
    assert template(document, "claims")["serviceAccountName"] == "reader"
    strategy = template(document, "claims")["retryStrategy"]
    seconds = [10 * int(strategy["backoff"]["factor"]) ** number for number in range(5)]
    assert sum(seconds) >= 300, "a volume can take minutes"


def test_without_claims_of_the_user_no_step_checks_them():
    assert not any("claims" in tasks(compiled(values)) for values in PLANS.values())
