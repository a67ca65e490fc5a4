"""KAITO's InferenceSet: the Workspace it stands for, and its rules, each at its place in the file."""

import pytest
from workspace_sample import check_broken, problems, write

from workflows.compile.kinds import compile_as
from workflows.load_plans import load_plans
from workflows.spec import load

SET = """\
apiVersion: kaito.sh/v1beta1
kind: InferenceSet
metadata:
  name: answers
  labels: {team: support}
spec:
  replicas: 3
  nodeCountLimit: 5
  labelSelector:
    matchLabels:
      apps: answers
  template:
    metadata:
      annotations: {kaito.sh/performance-mode: throughput}
    resource:
      instanceType: Standard_NC24ads_A100_v4
    inference:
      preset:
        name: phi-4-mini-instruct
      adapters:
        - source:
            name: polite
            image: registry.example.com/team/polite:1.0
"""


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


def test_inference_set_is_a_workspace_with_replicas(tmp_path):
    file = write(tmp_path, SET)
    [plan] = load_plans(str(file))
    assert (plan.name, plan.rollout.replicas, plan.origin("rollout.replicas")) == (
        "answers",
        3,
        f"Workspace ({file}:7)",
    )
    assert plan.resource.labels == {"apps": "answers"}
    assert plan.resource.instance_type == "Standard_NC24ads_A100_v4"
    assert plan.origin("resource.instanceType") == f"Workspace ({file}:16)"
    assert [adapter.name for adapter in plan.rollout.adapters] == ["polite"]
    assert plan.rollout.server_arguments["performance-mode"] == "throughput"
    document = compile_as(plan, "workflow")
    assert document["metadata"]["labels"]["team"] == "support"


def test_without_an_instance_type_it_runs_on_existing_nodes(tmp_path):
    """v1alpha1 has a default size for Workspaces, and none for InferenceSets."""
    text = SET.replace("v1beta1", "v1alpha1").replace("      instanceType: Standard_NC24ads_A100_v4\n", "      {}\n")
    [manifest] = load(write(tmp_path, text))
    assert manifest.workspace.resource.instance_type == ""
    assert manifest.workspace.pipeline.rollout.replicas == 3


def test_pipeline_block_is_next_to_the_spec(tmp_path):
    text = SET.replace("  replicas: 3\n", "") + "pipeline:\n  rollout: {question: Hello, replicas: 2}\n"
    [plan] = load_plans(str(write(tmp_path, text)))
    assert (plan.rollout.question, plan.rollout.replicas) == ("Hello", 2)


REPLICAS = "  replicas: 3\n"
# What is replaced by what (the bad line ends with `# <--`), the path, and words of the message.
BROKEN = {
    "none": (REPLICAS, "  replicas: 0  # <--\n", "spec.replicas", "0 servers cannot be rolled out"),
    "limit": (
        "  nodeCountLimit: 5\n",
        "  nodeCountLimit: 2  # <--\n",
        "spec.nodeCountLimit",
        "3 replicas need 3 nodes",
    ),
    "preset": (
        "        name: phi-4-mini-instruct\n",
        "        name: phi-4-mino  # <--\n",
        "spec.template.inference.preset.name",
        "Unsupported inference preset name phi-4-mino",
    ),
    "adapter": (
        "            image: registry.example.com/team/polite:1.0\n",
        "            urls: [https://x.example/a]  # <--\n",
        "spec.template.inference.adapters[0].source.urls",
        "URLs are not supported as adapter source",
    ),
    "size": (
        "Standard_NC24ads_A100_v4\n",
        "Standard_Nothing  # <--\n",
        "spec.template.resource.instanceType",
        "Unsupported instance type",
    ),
    "selector": (
        "    matchLabels:\n      apps: answers\n",
        "    matchExpressions: [{key: a, operator: Exists}]  # <--\n",
        "spec.labelSelector.matchExpressions[0]",
        "Only allow matchLabels",
    ),
    "annotation": (
        "kaito.sh/performance-mode: throughput}\n",
        "kaito.sh/performance-mode: fast}  # <--\n",
        "spec.template.metadata.annotations.kaito.sh/performance-mode",
        "not a valid performance mode",
    ),
    "type": (REPLICAS, "  replicas: three  # <--\n", "spec.replicas", "must be an integer"),
    "unknown": (REPLICAS, "  replica: 3  # <--\n", "spec.replica", "unknown field"),
    "update": (
        REPLICAS,
        REPLICAS + "  updateStrategy: {type: OnDelete}  # <--\n",
        "spec.updateStrategy.type",
        "only rolling updates are supported",
    ),
    "upgrade": (
        REPLICAS,
        REPLICAS + "  autoUpgrade: {enabled: true}  # <--\n",
        "spec.autoUpgrade.enabled",
        "the site profile sets the serve image",
    ),
    "part of a GPU with a size": (
        "    resource:\n",
        "    resource:\n      partition: {mode: mig, profile: 1g.10gb}  # <--\n",
        "spec.template.resource.partition",
        "only supported with BYO nodes",
    ),
    "twice": (
        "spec:\n",
        "pipeline:\n  rollout: {replicas: 2}  # <--\nspec:\n",
        "pipeline.rollout.replicas",
        "duplicates spec.replicas",
    ),
}


@pytest.mark.parametrize(("old", "new", "path", "words"), BROKEN.values(), ids=BROKEN)
def test_violated_rule_is_the_only_problem_at_its_line(tmp_path, old, new, path, words):
    check_broken(tmp_path, old, new, path, words, good=SET)


def test_partition_is_rejected_in_v1alpha1(tmp_path):
    text = SET.replace("v1beta1", "v1alpha1").replace(
        "      instanceType: Standard_NC24ads_A100_v4\n", "      partition: {mode: accelerator, count: 2}\n"
    )
    [problem] = problems(write(tmp_path, text))
    assert problem.path == "spec.template.resource.partition"
    assert "is not a field of kaito.sh/v1alpha1" in problem.message


SCALER = "scaledobject.kaito.sh/"


def scaled(**annotations):
    lines = "".join(f'    {SCALER}{key.replace("_", "-")}: "{value}"\n' for key, value in annotations.items())
    return SET.replace("  labels:", f"  annotations:\n{lines}  labels:")


@pytest.mark.parametrize(
    ("annotations", "most"),
    [
        ({"auto_provision": "true"}, 5),
        ({"auto_provision": "true", "max_replicas": "8", "metricName": "vllm:num_requests_waiting"}, 8),
        ({"auto_provision": "false", "max_replicas": "8"}, 0),
        ({}, 0),
    ],
)
def test_servers_are_added_while_requests_wait(tmp_path, annotations, most):
    [manifest] = load(write(tmp_path, scaled(**annotations)))
    assert manifest.workspace.pipeline.rollout.max_replicas == most
    assert manifest.warnings == ()


@pytest.mark.parametrize(
    ("annotations", "key", "words"),
    [
        ({"threshold": "20"}, "threshold", "more than 10 waiting requests"),
        ({"metricName": "vllm:gpu_cache_usage_perc"}, "metricName", "only scaled by vllm:num_requests_waiting"),
        ({"min_replicas": "1"}, "min-replicas", "minimum is spec.replicas (3)"),
        ({"metrics": "[]"}, "metrics", "is ignored"),
    ],
)
def test_differences_of_the_autoscaler_are_reported(tmp_path, annotations, key, words):
    [manifest] = load(write(tmp_path, scaled(auto_provision="true", **annotations)))
    [warning] = manifest.warnings
    assert warning.path == f"metadata.annotations.{SCALER}{key}"
    assert words in warning.message


def test_autoscaler_requires_a_maximum(tmp_path):
    [manifest] = load(write(tmp_path, scaled(auto_provision="true").replace("  nodeCountLimit: 5\n", "")))
    [warning] = manifest.warnings
    assert "the maximum number of servers is missing, so the number stays at 3" in warning.message
    [problem] = problems(write(tmp_path, scaled(auto_provision="true", max_replicas="many")))
    assert problem.path == f"metadata.annotations.{SCALER}max-replicas"


def test_inference_set_and_workspace_names_must_differ(tmp_path):
    workspace = "---\napiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: answers}\n"
    workspace += "inference: {preset: {name: phi-4-mini-instruct}}\n"
    [problem] = problems(write(tmp_path, SET + workspace))
    assert "Workspace answers is a duplicate" in problem.message
