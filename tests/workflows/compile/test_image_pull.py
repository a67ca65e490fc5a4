"""The task ``pull``: where it is compiled, what its pods share with tune, and that its failure fails no run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from plan_samples import BASE, EVALUATION, PLANS, SEARCH, TUNING, compiled

from workflows import runner
from workflows.argo.dag import Graph
from workflows.argo.phase import Phase
from workflows.argo.workflow import Workflow
from workflows.lint import lint_run

SIZE = {"resource.instanceType": "Standard_NC24ads_A100_v4"}
KARPENTER = SIZE | {"nodes.provider": "karpenter", "nodes.nodeClass": "gpu"}
AKS = SIZE | {"nodes.provider": "aks", "nodes.subscription": "s", "nodes.resourceGroup": "g", "nodes.cluster": "c"}
PODS = {
    "all": {"imagePullSecrets": ["registry"], "imagePullPolicy": "Always", "labels": {"team": "ml"}},
    "tune": {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "team", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "priorityClassName": "high",
        "resources": {"requests": {"cpu": "20"}, "limits": {"memory": "200Gi"}},
        "env": [{"name": "A", "value": "b"}],
        "caBundle": {"name": "ca", "key": "ca.crt"},
    },
}


def templates(document: dict[str, Any]) -> dict[str, Any]:
    return {template["name"]: template for template in document["spec"]["templates"]}


@pytest.mark.parametrize("nodes", [KARPENTER, AKS], ids=["karpenter", "aks"])
@pytest.mark.parametrize("name", ["everything", "retraining", "search"])
def test_it_follows_provision_and_nothing_depends_on_it(nodes: dict[str, Any], name: str) -> None:
    document = compiled(PLANS[name] | nodes)
    main = next(one for one in Workflow.model_validate(document).spec.templates if one.name == "main")
    graph = Graph(main.tasks)
    assert graph.parents["pull"] == ["provision"]
    assert "pull" in graph.leaves
    assert not graph.depends_satisfied("pull", {"provision": Phase.OMITTED}, {}), "a retraining without a change"
    assert [finding.problem for finding in lint_run(document)] == []


@pytest.mark.parametrize(
    "values",
    [
        PLANS["everything"],
        PLANS["everything"] | SIZE,
        PLANS["everything"] | SIZE | {"nodes.provider": "existing"},
        PLANS["everything"] | {"nodes.provider": "karpenter", "nodes.nodeClass": "gpu"},
        PLANS["inference only"] | KARPENTER,
    ],
    ids=["no instance type", "autoscaler", "existing", "karpenter without an instance type", "inference only"],
)
def test_a_run_that_creates_no_nodes_pulls_nothing_in_advance(values: dict[str, Any]) -> None:
    assert "pull" not in json.dumps(list(templates(compiled(values))))


def test_its_pod_has_the_placement_and_access_of_tune_and_none_of_its_resources() -> None:
    accounts = {"serviceAccounts": {"tune": "trainer"}}
    found = templates(compiled(PLANS["everything"] | KARPENTER | accounts | {"pods": PODS}))
    pull, tune = found["pull-image"], found["tune"]
    for name in ("nodeSelector", "tolerations", "serviceAccountName", "priorityClassName"):
        assert pull[name] == tune[name], name
    for name in ("image", "imagePullPolicy", "securityContext"):
        assert pull["container"][name] == tune["container"][name], name
    assert pull["metadata"]["labels"]["team"] == "ml"
    patch = json.loads(tune["podSpecPatch"])
    del patch["terminationGracePeriodSeconds"]
    assert json.loads(pull["podSpecPatch"]) == patch
    assert pull["container"]["resources"] == {"requests": {"cpu": "10m", "memory": "32Mi"}}
    assert not {"volumeMounts", "env", "args"} & set(pull["container"])
    assert not {"volumes", "synchronization", "affinity", "inputs", "outputs"} & set(pull)


def test_a_pod_that_cannot_run_ends() -> None:
    """Argo enforces the timeout of a Pending pod, and accepts its failure, only in this form."""
    found = templates(compiled(PLANS["everything"] | KARPENTER))
    assert (found["pull-image"]["timeout"], "retryStrategy" in found["pull-image"]) == ("15m", False)
    [task] = found["pull"]["dag"]["tasks"]
    assert (task["continueOn"], "depends" in task) == ({"failed": True, "error": True}, False)


def test_each_node_that_tunes_has_a_pod() -> None:
    found = templates(compiled(PLANS["everything"] | KARPENTER | {"resource.count": 3}))
    [task] = found["pull"]["dag"]["tasks"]
    assert task["withItems"] == [0, 1, 2]
    [term] = found["pull-image"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = found["pull-image"]["metadata"]["labels"]
    assert term["labelSelector"]["matchLabels"].items() <= labels.items()
    assert found["pull-image"]["serviceAccountName"] == found["tune"]["serviceAccountName"] == "argotune-tune"
    assert not set(labels) & set(found["tune"]["metadata"]["labels"]), "no network policy of a training admits it"


@pytest.mark.parametrize("values", [{}, SEARCH | {"search.parallel": 1}, {"resource.count": 2}])
def test_a_failed_pull_fails_no_run(tmp_path: Path, values: dict[str, Any]) -> None:
    document = compiled(BASE | TUNING | EVALUATION | KARPENTER | values)
    write = (
        "import os, pathlib, sys; folder = pathlib.Path(os.environ['ARGOTUNE_OUTPUTS']); "
        "folder.mkdir(parents=True, exist_ok=True); "
        "[(folder / name).write_text('pass') for name in ('verdict', 'adapter-digest', 'data-digest')]"
    )
    for template in document["spec"]["templates"]:
        if "container" in template:
            program = "raise SystemExit(1)" if template["name"] == "pull-image" else write
            template["container"] |= {"command": [sys.executable, "-S", "-c", program], "args": []}
    del document["spec"]["onExit"]
    folder = tmp_path / "run"
    outcome = runner.start(document, folder, name="x")
    phases = {key: node.phase for key, node in outcome.nodes.items()}
    assert phases["pull.pull-image"] == "Failed"
    assert (phases["pull"], outcome.phase, outcome.failed) == ("Succeeded", "Succeeded", "")
