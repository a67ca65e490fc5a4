"""Runs that lose a pod, and runs that are tried again."""

from __future__ import annotations

from typing import Any

from real_cluster import Cluster

STEPS = 60


def pods_of(workflow: dict[str, Any], template: str) -> list[dict[str, Any]]:
    nodes = workflow["status"]["nodes"].values()
    return [node for node in nodes if node["type"] == "Pod" and node["templateName"] == template]


def is_tuning(node: dict[str, Any]) -> bool:
    """Return True if a tune pod is past its first checkpoints."""
    done = int(node.get("progress", "0/100").partition("/")[0])
    return node["type"] == "Pod" and node["templateName"] == "tune" and 20 <= done < 90


def test_tuning_goes_on_from_its_checkpoint_when_the_pod_is_deleted(cluster: Cluster, workspace):
    run = cluster.submit(workspace("resumed", max_steps=STEPS, training={"save_steps": 5, "logging_steps": 1}))
    cluster.wait_for(run, is_tuning)
    cluster.kubectl("delete", "pod", cluster.pod_of(run, "tune"), "--force", "--grace-period=0")
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Succeeded", cluster.argotune("status", run)
    assert len(pods_of(workflow, "tune")) == 2
    logs = cluster.argotune("logs", run, "--step", "tune")
    assert "resuming from step" in logs


def test_unchanged_data_ends_before_a_gpu_pod(cluster: Cluster, workspace):
    file = workspace("scheduled", pipeline={"schedule": {"schedules": ["0 3 * * 0"]}})
    first = cluster.finish(cluster.submit(file))
    assert first["status"]["phase"] == "Succeeded"
    assert pods_of(first, "tune")
    second = cluster.finish(cluster.submit(file))
    assert second["status"]["phase"] == "Succeeded"
    assert pods_of(second, "check")
    assert not pods_of(second, "tune") and not pods_of(second, "provision")
