"""Options of the site profile in compiled Workflows: every pod of a run, and the servers of a rollout."""

import json
from typing import Any

import pytest
from plan_samples import PLANS

from steps.rollout.settings import Settings
from workflows.compile.dag import compile_workflow
from workflows.plan.layers import Layer, merge

ALL = {
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HF_HOME", "value": "/elsewhere"}],
    "caBundle": {"name": "corporate-ca", "key": "ca.crt"},
    "nodeSelector": {"pool": "cpu"},
    "tolerations": [{"key": "team", "operator": "Exists"}],
    "priorityClassName": "low",
    "labels": {"cost-center": "42"},
    "annotations": {"example.com/owner": "ml"},
    "imagePullSecrets": ["registry"],
    "imagePullPolicy": "Always",
}
TUNE = {"runtimeClassName": "nvidia", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "16Gi"}}}


@pytest.fixture
def pods() -> dict[str, dict[str, Any]]:
    plan = merge([Layer("test", {**PLANS["everything"], "pods": {"all": ALL, "tune": TUNE}})])
    templates = compile_workflow(plan)["spec"]["templates"]
    return {template["name"]: template for template in templates if "container" in template}


def test_every_pod_of_a_run_has_the_options(pods):
    assert len(pods) > 6
    for template in pods.values():
        container = template["container"]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert env["HTTPS_PROXY"] == "http://proxy:3128"
        assert env["SSL_CERT_FILE"] == "/mnt/ca-bundle/ca.crt"
        assert len(env) == len(container["env"])
        assert container["imagePullPolicy"] == "Always"
        assert template["nodeSelector"]["pool"] == "cpu"
        assert {"key": "team", "operator": "Exists"} in template["tolerations"]
        assert template["priorityClassName"] == "low"
        assert template["metadata"]["labels"]["cost-center"] == "42"
        assert template["metadata"]["annotations"]["example.com/owner"] == "ml"
        assert {"name": "ca-bundle", "configMap": {"name": "corporate-ca"}} in template["volumes"]
        assert json.loads(template["podSpecPatch"])["imagePullSecrets"] == [{"name": "registry"}]


def test_a_step_keeps_what_it_needs(pods):
    tune = pods["tune"]
    env = {variable["name"]: variable.get("value") for variable in tune["container"]["env"]}
    assert env["HF_HOME"] == "/mnt/models/huggingface"
    assert json.loads(tune["podSpecPatch"])["terminationGracePeriodSeconds"] == 120
    assert tune["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in tune["tolerations"]


def test_options_of_one_step_are_its_own(pods):
    assert json.loads(pods["tune"]["podSpecPatch"])["runtimeClassName"] == "nvidia"
    assert pods["tune"]["container"]["resources"] == {
        "requests": {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "1"},
    }
    assert "runtimeClassName" not in json.loads(pods["report"]["podSpecPatch"])
    assert pods["report"]["container"]["resources"] == {"requests": {"cpu": "250m", "memory": "512Mi"}}


def test_servers_have_the_options(pods):
    args = pods["rollout"]["container"]["args"]
    parts = json.loads(args[args.index("--pod-options") + 1])
    assert parts["spec"]["tolerations"] == ALL["tolerations"]
    assert parts["container"]["imagePullPolicy"] == "Always"
    assert Settings(work="w", model="m", pod_options=parts)
