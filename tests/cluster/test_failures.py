"""Failed, stopped and rejected runs: the cause is where a user looks, and the exit handler has run."""

from __future__ import annotations

from typing import Any

from real_cluster import Cluster

BROKEN = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken-rows"}, "data": {"rows.parquet": "no"}}


def steps_that_ran(workflow: dict[str, Any]) -> set[str]:
    return {node["templateName"] for node in workflow["status"]["nodes"].values() if node["type"] == "Pod"}


def test_a_failed_step_says_why(cluster: Cluster, workspace):
    cluster.apply(BROKEN)
    run = cluster.submit(workspace("broken", rows="broken-rows"))
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Failed"
    assert "tune" not in steps_that_ran(workflow)
    assert {"release", "report"} <= steps_that_ran(workflow)
    status = cluster.argotune("status", run)
    assert "rows.parquet" in status and "fix:" in status
    assert "retryStrategy.expression" not in status
    pods = cluster.get("pods", "", "--selector", f"workflows.argoproj.io/workflow={run}")["items"]
    messages = [
        container["state"]["terminated"].get("message", "")
        for pod in pods
        for container in pod["status"]["containerStatuses"]
        if container["name"] == "main" and container["state"].get("terminated", {}).get("exitCode") == 2
    ]
    assert messages and all("rows.parquet" in message for message in messages)


def test_a_rejected_candidate_ends_with_the_gates_exit_code(cluster: Cluster, workspace):
    gate = {"evaluation": {"samples": 1, "maxLossRatio": 0.01}}
    run = cluster.submit(workspace("rejected", pipeline=gate))
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Succeeded"
    assert "package" not in steps_that_ran(workflow)
    assert "maxLossRatio" in cluster.argotune("status", run)


def test_an_operator_approves_a_run(cluster: Cluster, workspace):
    """By an account of its own: the installation's has the rights of submitters, in other tests too."""
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator"}})
    for role in ("argotune-submitter", "argotune-operator"):
        cluster.bind(role, "operator")
    operator = cluster.as_account("operator")
    run = operator.submit(workspace("approved", pipeline={"approval": True}))
    cluster.wait_for_node(run, "approval", "Running")
    assert "approv" in operator.argotune("status", run)
    operator.argotune("approve", run)
    assert cluster.finish(run)["status"]["phase"] == "Succeeded"


def is_waiting(node: dict[str, Any]) -> bool:
    """Return True if a node waits for the semaphore of GPUs."""
    lock = node.get("synchronizationStatus") or {}
    return "argotune-semaphores" in lock.get("waiting", "")


def test_stop_runs_the_exit_handler_and_terminate_does_not(cluster: Cluster, workspace):
    stopped = cluster.submit(workspace("stopped", max_steps=1000))
    cluster.wait_for_node(stopped, "tune", "Running")
    terminated = cluster.submit(workspace("terminated", max_steps=1000))
    cluster.wait_for(terminated, is_waiting)
    cluster.argotune("stop", "--cluster", stopped)
    workflow = cluster.finish(stopped)
    assert workflow["status"]["phase"] == "Failed"
    assert {"release", "report"} <= steps_that_ran(workflow)
    cluster.wait_for_node(terminated, "tune", "Running")
    cluster.argo("terminate", terminated)
    assert not {"release", "report"} & steps_that_ran(cluster.finish(terminated))
