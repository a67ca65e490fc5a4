"""Runs that lose the pod of tune resume at its last checkpoint."""

from __future__ import annotations

import subprocess

import pytest
from real_cluster import Cluster, pods_of

STEPS = 20


def wait_for_checkpoints(cluster: Cluster, run: str) -> str:
    """Return the pod of tune once it is past its first checkpoints; the progress of its node is a minute late."""
    cluster.wait_for_node(run, "tune", "Running")
    pod = cluster.pod_of(run, "tune")
    cluster.wait_for_line(pod, "step 7/")
    return pod


@pytest.fixture(scope="module")
def limited(cluster: Cluster) -> Cluster:
    """The installation with a site profile that limits the memory of tune, below its need and 2Gi of shared memory."""
    limit = {"tune": {"resources": {"limits": {"memory": "2560Mi"}}}}
    return cluster.with_site("limited", lambda profile: profile["pods"].update(limit))


def delete(cluster: Cluster, pod: str) -> None:
    cluster.kubectl("delete", "pod", pod, "--force", "--grace-period=0")


def drain_node(cluster: Cluster, pod: str) -> None:
    """Drain the pod's node of this pod alone: the other pods of the cluster stay."""
    node = cluster.get("pod", pod)["spec"]["nodeName"]
    run = cluster.get("pod", pod)["metadata"]["labels"]["workflows.argoproj.io/workflow"]
    selector = f"--pod-selector=workflows.argoproj.io/workflow={run}"
    cluster.kubectl("drain", node, selector, "--force", "--delete-emptydir-data", timeout=240)
    cluster.kubectl("uncordon", node)


def exhaust_memory(cluster: Cluster, pod: str) -> None:
    """Fill the memory of the container by files in memory: the kernel kills its largest process."""
    fill = "i=0; while dd if=/dev/zero of=/dev/shm/fill$i bs=1M count=100 2>/dev/null; do i=$((i+1)); done"
    command = ["kubectl", "exec", pod, "--namespace", cluster.namespace, "--container", "main", "--", "sh", "-c", fill]
    subprocess.run(command, capture_output=True, timeout=120)  # ends with the container


@pytest.mark.parametrize("end", [delete, drain_node, exhaust_memory], ids=lambda end: end.__name__)
def test_tuning_resumes_at_its_checkpoint(cluster: Cluster, limited: Cluster, workspace, end):
    name = f"resumed-{end.__name__.replace('_', '-')}"
    submitter = limited if end is exhaust_memory else cluster
    run = submitter.submit(workspace(name, max_steps=STEPS, training={"save_steps": 3, "logging_steps": 1}))
    end(cluster, wait_for_checkpoints(cluster, run))
    workflow = cluster.finish(run)
    assert workflow["status"]["phase"] == "Succeeded", cluster.argotune("status", run)
    # Argo repeats a deleted pod in the same node, or in another one, as the executor's result was known or not.
    first, *_, last = sorted(pods_of(workflow, "tune"), key=lambda node: str(node["startedAt"])) * 2
    assert last["phase"] == "Succeeded"
    if end is exhaust_memory:
        assert "OOMKilled" in first["message"]
    assert "resuming from step" in cluster.argotune("logs", run, "--step", "tune")
