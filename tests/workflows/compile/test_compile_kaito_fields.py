"""KAITO's fields in the compiled Workflow."""

import json
from pathlib import Path

import pytest

from workflows import lint
from workflows.compile import emit
from workflows.compile.dag import compile_workflow
from workflows.plan.layers import Layer, merge

SERVE = {"name": "phi", "model.preset": "phi-4", "model.repository": "microsoft/phi-4", "rollout.question": "Who?"}
SIZE = "Standard_NC24ads_A100_v4"
TUNE = SERVE | {"tuning.method": "qlora", "data.urls": ["https://e.com/a.parquet"], "output.image": "reg.io/a:1"}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{{{'a': '}}'}}}{% endfor %}é\n\\"


def compiled(values):
    document = compile_workflow(merge([Layer("test", values)]))
    report = lint.lint([("workflow.yaml", emit.to_yaml(document))])
    assert [str(finding) for finding in report.findings if finding.severity == "error"] == []
    return document


def template(document, name):
    return next(item for item in document["spec"]["templates"] if item["name"] == name)


def flag(document, step, name):
    words = template(document, step)["container"]["args"]
    return words[words.index(f"--{name}") + 1]


def test_the_braces_of_a_chat_template_are_escaped():
    document = compiled(TUNE | {"tuning.modelConfig": {"chat_template": TEMPLATE}})
    value = flag(document, "tune", "model-config")
    assert "{{" not in value
    assert json.loads(value) == {"chat_template": TEMPLATE}
    assert "{{ m" not in json.dumps(document)


def test_preferred_nodes_are_matched_by_name():
    affinity = template(compiled(TUNE | {"resource.preferredNodes": ["aks-1", "aks-2"]}), "tune")["affinity"]
    assert affinity == {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 10,
                    "preference": {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]},
                }
                for node in ("aks-1", "aks-2")
            ]
        }
    }


def test_servers_have_the_same_preferred_nodes():
    from steps.rollout import service_pod
    from steps.rollout.settings import Settings

    document = compiled(SERVE | {"resource.preferredNodes": ["aks-1"], "resource.instanceType": SIZE})
    names, sizes = (json.loads(flag(document, "rollout", name)) for name in ("preferred-nodes", "instance-types"))
    settings = Settings(work=Path("/work"), name="phi", model="a/b", preferred_nodes=names, instance_types=sizes)
    affinity = service_pod.build_pod(settings, {})["spec"]["affinity"]["nodeAffinity"]
    [preferred] = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["aks-1"]}]
    [required] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert required["matchExpressions"][0]["values"] == [SIZE]


def test_servers_are_hot_loaded_unless_the_workspace_disables_it():
    assert "--hot-load" not in template(compiled(TUNE), "rollout")["container"]["args"]
    assert flag(compiled(TUNE | {"rollout.hotLoad": False}), "rollout", "hot-load") == "false"


def test_provisioned_nodes_are_selected_by_the_run_only():
    size = {"resource.instanceType": SIZE, "nodes.provider": "karpenter"}
    document = compiled(TUNE | size | {"resource.preferredNodes": ["aks-1"]})
    assert "affinity" not in template(document, "tune")


def test_a_gpu_partition_is_requested_by_its_resource_name():
    document = compiled(TUNE | {"resource.gpuResource": "nvidia.com/mig-2g.24gb"})
    limits = template(document, "tune")["container"]["resources"]["limits"]
    assert limits["nvidia.com/mig-2g.24gb"] == "1"
    assert "nvidia.com/gpu" not in limits


def test_labels_of_the_workspace_do_not_override_argotune_s():
    document = compiled(SERVE | {"labels": {"team": "support", "argotune.dev/workspace": "other"}})
    assert document["metadata"]["labels"] == {
        "team": "support",
        "app.kubernetes.io/managed-by": "argotune",
        "argotune.dev/workspace": "phi",
        "argotune.dev/preset": "phi-4",
    }


def test_adapters_are_pulled_with_their_secret():
    values = {"rollout.adapters": [{"name": "b", "image": "reg.io/b:1"}], "rollout.pullSecrets": ["pull"]}
    document = compiled(SERVE | values)
    container = template(document, "rollout")["container"]
    folder = next(item["value"] for item in container["env"] if item["name"] == "DOCKER_CONFIG")
    [mounted] = [item["name"] for item in container["volumeMounts"] if item["mountPath"] == folder]
    secret = next(item["secret"] for item in document["spec"]["volumes"] if item["name"] == mounted)
    assert secret["secretName"] == "pull"


@pytest.mark.parametrize("preset", ["phi-4", ""])
def test_the_title_names_the_served_model(preset):
    values = SERVE if preset else {"name": "own", "rollout.template": {"spec": {"containers": [{"image": "a/b:1"}]}}}
    title = compiled(values)["metadata"]["annotations"]["workflows.argoproj.io/title"]
    assert title == (f"phi: serve {preset}" if preset else "own: serve a custom pod")
