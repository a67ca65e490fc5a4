"""Credentials of the data: by reference to a Secret, in the pods that read the data and in no other."""

import json
from typing import Any

import pytest
from plan_samples import PLANS

from workflows.compile.dag import compile_workflow
from workflows.plan.layers import Layer, merge

URLS = ["s3://rows/x", "hf://datasets/org/rows"]


def variables(step: str, **values: Any) -> dict[str, dict[str, Any]]:
    """Return the environment of a step that comes from Secrets."""
    given = {key: value for key, value in PLANS["everything"].items() if not key.startswith("data.")}
    plan = merge([Layer("test", {**given, "data.urls": URLS, **values})])
    document = compile_workflow(plan)
    [template] = [each for each in document["spec"]["templates"] if each["name"] == step]
    env = template["container"]["env"]
    assert len({variable["name"] for variable in env}) == len(env)
    return {
        variable["name"]: variable["valueFrom"]["secretKeyRef"]
        for variable in env
        if "secretKeyRef" in variable.get("valueFrom", {})
    }


@pytest.mark.parametrize("step", ["download", "preflight"])
def test_keys_of_the_secret_are_optional_variables(step):
    env = variables(step, **{"data.secret": "team-data", "model.accessSecret": "hub"})
    for name in ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AZURE_STORAGE_KEY"):
        assert env[name] == {"name": "team-data", "key": name, "optional": True}


def test_the_token_of_the_model_reads_datasets_too():
    assert variables("download", **{"model.accessSecret": "hub"}) == {
        "HF_TOKEN": {"name": "hub", "key": "HF_TOKEN", "optional": True}
    }
    assert variables("download", **{"model.accessSecret": ""}) == {}


def test_named_inputs_count_as_data():
    inputs = [{"name": "more", "urls": ["hf://datasets/org/rows"]}]
    env = variables("download", **{"model.accessSecret": "hub", "data.urls": [], "data.inputs": inputs})
    assert "HF_TOKEN" in env


def test_other_steps_have_no_credentials_of_the_data():
    for step in ("tune", "evaluate", "package", "report"):
        assert "team-data" not in json.dumps(variables(step, **{"data.secret": "team-data"}))


def test_variables_of_the_site_profile_win():
    pods = {"all": {"env": [{"name": "AWS_ENDPOINT_URL", "value": "http://minio.storage:9000"}]}}
    env = variables("download", **{"data.secret": "team-data", "pods": pods})
    assert "AWS_ENDPOINT_URL" not in env and "AWS_ACCESS_KEY_ID" in env
