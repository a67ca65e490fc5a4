"""A run from submission to its packaged adapter, and what kubectl, argo and argotune show of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from real_cluster import Cluster

NAME = "oncall"


@pytest.fixture(scope="module")
def finished(cluster: Cluster, module_workspace) -> dict[str, Any]:
    """A finished run, submitted as CI would: with the rights of ``argotune-submitter`` only."""
    file = module_workspace(NAME, max_steps=4)
    run = cluster.as_account("argotune-submitter").submit(file)
    return cluster.finish(run)


def nodes(workflow: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Nodes of a Workflow that are pods, by template; the last try wins."""
    pods = [node for node in workflow["status"]["nodes"].values() if node["type"] == "Pod"]
    return {node["templateName"]: node for node in sorted(pods, key=lambda node: node["startedAt"])}


def test_the_run_succeeds_under_pod_security_restricted(cluster: Cluster, finished):
    assert finished["status"]["phase"] == "Succeeded", cluster.argotune("status", finished["metadata"]["name"])
    assert {"preflight", "provision", "download", "tune", "evaluate", "package", "release", "report"} <= set(
        nodes(finished)
    )


def test_outputs_are_parameters_of_the_nodes(finished):
    outputs = {
        (template, parameter["name"]): parameter["value"]
        for template, node in nodes(finished).items()
        for parameter in (node.get("outputs") or {}).get("parameters", [])
    }
    assert int(outputs["download", "rows"]) > 100
    assert outputs["evaluate", "verdict"] == "pass"
    assert outputs["package", "image-digest"].startswith("sha256:")


def test_status_shows_each_step(cluster: Cluster, finished):
    shown = json.loads(cluster.argotune("status", NAME, "--output", "json"))
    assert shown["phase"] == "Succeeded"
    assert finished["metadata"]["name"] in cluster.argotune("ls")


def test_logs_have_the_lines_of_steps_and_not_those_of_the_executor(cluster: Cluster, finished):
    logs = cluster.argotune("logs", finished["metadata"]["name"])
    assert "argo=true" not in logs
    assert "[tune] base model: " in logs
