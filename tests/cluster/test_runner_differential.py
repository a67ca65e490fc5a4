"""Phases of DAGs and Steps with failures, and retries: the local runner ends a document as Argo's controller does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from real_cluster import Cluster
from small_pods import small_pod

from workflows import runner

ACCEPTING = {"continueOn": {"failed": True}}


def task(name: str, code: str = "0", **fields: Any) -> dict[str, Any]:
    """Return a task or step that exits with a code."""
    arguments = {"parameters": [{"name": "code", "value": code}]}
    return {"name": name, "template": "exits", "arguments": arguments, **fields}


RETRIES = {"limit": "2", "retryPolicy": "Always", "expression": "asInt(lastRetry.exitCode) != 3"}


DAGS = {
    "accepted": [task("bad", "3", **ACCEPTING), task("after", dependencies=["bad"])],
    "accepted-then-skipped": [task("bad", "3", **ACCEPTING), task("after", dependencies=["bad"], when="1 == 2")],
    "leaf-accepts": [task("bad", "3"), task("after", dependencies=["bad"], **ACCEPTING)],
    "inherited": [task("bad", "3"), task("after", dependencies=["bad"])],
    "handled": [task("bad", "3"), task("after", depends="bad.Failed")],
    "handled-then-omitted": [task("good"), task("after", depends="good.Failed")],
    "retried": [task("bad", "4", template="retrying")],
    "not-retried": [task("bad", "3", template="retrying"), task("after", depends="bad.Failed && !bad.Errored")],
    "any-item": [
        task("items", "{{item}}", withItems=["0", "3"], **ACCEPTING),
        task("after", dependencies=["items"]),
    ],
}
STEPS = {
    "step-accepted": [[task("bad", "3", **ACCEPTING)], [task("after", when="1 == 2")]],
    "step-failed": [[task("bad", "3")], [task("after")]],
}


def document() -> dict[str, Any]:
    """Return a Workflow with one task for each case, none of which stops the others."""
    pod = small_pod("exits", ["sh", "-c", "exit {{inputs.parameters.code}}"])["spec"]
    [container] = pod["containers"]
    exits = {"name": "exits", "inputs": {"parameters": [{"name": "code"}]}, "container": container}
    cases = [{"name": name, "template": name} for name in (*DAGS, *STEPS)]
    spec = {
        "entrypoint": "main",
        "serviceAccountName": "argotune",
        "securityContext": pod["securityContext"],
        "templates": [
            {"name": "main", "dag": {"failFast": False, "tasks": cases}},
            *({"name": name, "dag": {"tasks": tasks}} for name, tasks in DAGS.items()),
            *({"name": name, "steps": groups} for name, groups in STEPS.items()),
            exits,
            {**exits, "name": "retrying", "retryStrategy": RETRIES},
        ],
    }
    metadata = {"generateName": "differential-"}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec}


def test_the_local_runner_ends_as_argo_does(cluster: Cluster, tmp_path: Path):
    local = runner.start(document(), tmp_path / "run", name="differential")
    run = cluster.create(document())
    workflow = cluster.finish(run)
    nodes = {node["name"].removeprefix(f"{run}."): node for node in workflow["status"]["nodes"].values()}
    expected = {name: nodes[name]["phase"] for name in (*DAGS, *STEPS)}
    # Argo has a node for each group of Steps, and none for steps that follow a failure.
    tasks = [f"{name}.{each['name']}" for name, group in DAGS.items() for each in group]
    expected |= {name: nodes[name]["phase"] for name in tasks}
    assert {name: str(local.nodes[name].phase) for name in expected} == expected
    assert workflow["status"]["phase"] == str(local.phase)
    attempts = {name: len(node.attempts) for name, node in local.nodes.items() if node.template == "retrying"}
    assert (
        attempts
        == {name: len(nodes[name]["children"]) for name in attempts}
        == {"retried.bad": 3, "not-retried.bad": 1}
    )
