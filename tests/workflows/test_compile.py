"""The compiled Workflow: what runs when, and that every flag it passes is one the step takes."""

import importlib
import json

import pytest

from steps import step
from workflows.compile.dag import compile_workflow
from workflows.plan import Layer, merge

BASE = {"name": "phi", "model.preset": "phi-4", "model.repository": "microsoft/phi-4"}
TUNING = {"tuning.method": "qlora", "data.urls": ["https://example.com/a.parquet"], "output.image": "reg.io/a:1"}
EVALUATION = {"evaluation.samples": 3}
ROLLOUT = {"rollout.question": "Who?", "rollout.adapters": [{"name": "other", "image": "reg.io/b:1"}]}
PLANS = {
    "everything": BASE | TUNING | EVALUATION | ROLLOUT,
    "tuning only": BASE | TUNING | EVALUATION,
    "no evaluation": BASE | TUNING | ROLLOUT,
    "inference only": BASE | ROLLOUT,
    "volumes": BASE
    | {"tuning.rank": 4, "data.volume": {"hostPath": {"path": "/d"}}, "output.volume": {"emptyDir": {}}},
    "secrets": BASE | TUNING | {"output.pushSecret": "push", "model.accessSecret": "hub"},
}


def compiled(values: dict) -> dict:
    return compile_workflow(merge([Layer("test", values)]))


def tasks(document: dict) -> dict[str, dict]:
    main = next(template for template in document["spec"]["templates"] if template["name"] == "main")
    return {task["name"]: task for task in main["dag"]["tasks"]}


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_flags_are_those_of_the_step(values):
    """Each argument list is read by the step's own parser, with Argo's placeholders filled in."""
    document = compiled(values)
    parameters = {item["name"]: item["value"] for item in document["spec"].get("arguments", {}).get("parameters", [])}
    for template in document["spec"]["templates"]:
        if "container" not in template:
            continue
        module = importlib.import_module(template["container"]["command"][2])
        words = [filled(word, parameters) for word in template["container"]["args"]]
        step.parse(module.Settings, words, template["name"])


def filled(word: str, parameters: dict[str, str]) -> str:
    if word.startswith("{{inputs.parameters."):
        name = word.removeprefix("{{inputs.parameters.").removesuffix("}}")
        return parameters.get(name, "sha256:" + "0" * 64)
    return {"{{workflow.status}}": "Succeeded", "{{workflow.failures}}": "null"}.get(word, word)


@pytest.mark.parametrize("values", PLANS.values(), ids=PLANS)
def test_outputs_are_those_of_the_step(values):
    for template in compiled(values)["spec"]["templates"]:
        if "container" in template:
            module = importlib.import_module(template["container"]["command"][2])
            declared = {parameter["name"] for parameter in template["outputs"]["parameters"]}
            assert declared <= {field.replace("_", "-") for field in module.Result.__dataclass_fields__}


def test_dag_waits_for_what_it_needs():
    found = {name: task.get("depends") for name, task in tasks(compiled(PLANS["everything"])).items()}
    assert found == {
        "provision": None,
        "download": None,
        "tune": "provision && download",
        "evaluate": "tune",
        "package": "evaluate",
        "rollout": "package.Succeeded",
    }


def test_gate_stands_before_package_and_a_skipped_package_stops_the_rollout():
    found = tasks(compiled(PLANS["everything"]))
    assert found["package"]["when"] == "{{tasks.evaluate.outputs.parameters.verdict}} == pass"
    assert found["rollout"]["depends"] == "package.Succeeded"


def test_without_held_out_rows_nothing_is_evaluated():
    found = tasks(compiled(PLANS["no evaluation"]))
    assert "evaluate" not in found
    assert found["package"]["depends"] == "tune"
    assert "when" not in found["package"]


def test_inference_only_serves_the_given_adapters():
    document = compiled(PLANS["inference only"])
    assert list(tasks(document)) == ["provision", "rollout"]
    template = next(item for item in document["spec"]["templates"] if item["name"] == "rollout")
    words = template["container"]["args"]
    assert json.loads(words[words.index("--adapters") + 1]) == [{"name": "other", "image": "reg.io/b:1"}]


def test_secrets_travel_by_reference_only():
    document = compiled(PLANS["secrets"])
    templates = {template["name"]: template for template in document["spec"]["templates"]}
    token = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "HF_TOKEN"}}}
    assert token in templates["tune"]["container"]["env"]
    assert {"name": "DOCKER_CONFIG", "value": "/mnt/push-secret"} in templates["package"]["container"]["env"]
    volume = next(volume for volume in document["spec"]["volumes"] if volume["name"] == "push-secret")
    assert volume["secret"]["secretName"] == "push"


def test_only_what_computes_asks_for_a_gpu():
    document = compiled(PLANS["everything"] | {"resource.instanceType": "Standard_NC24ads_A100_v4"})
    on_gpu = {
        template["name"]
        for template in document["spec"]["templates"]
        if "nvidia.com/gpu" in template.get("container", {}).get("resources", {}).get("limits", {})
    }
    assert on_gpu == {"tune", "evaluate"}


def test_compiling_twice_gives_the_same_document():
    assert compiled(PLANS["everything"]) == compiled(PLANS["everything"])
