"""Kueue's label on the pods that request GPUs, and on no others, as the API server stores them.

Kueue is not installed: nothing suspends the pods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from real_cluster import Cluster
from served_model import push_adapter
from workspaces import write_service

from steps.kubernetes.pod_policy import QUEUE_LABEL

QUEUE = "team-a"


def queued(cluster: Cluster) -> Cluster:
    """Return the installation with a site profile with a queue, whose GPU pods wait for a node that does not exist."""
    nowhere = {"nodeSelector": {"argotune-test": "nowhere"}}

    def change(profile: dict[str, Any]) -> None:
        profile |= {"queue": QUEUE, "semaphore": {"key": ""}}
        profile["pods"] |= {"tune": nowhere, "serve": nowhere}

    return cluster.with_site("queued", change)


def requests_gpus(pod: dict[str, Any]) -> bool:
    """Return True if a pod, or a template of one, requests a GPU."""
    return any("nvidia.com/gpu" in container["resources"].get("limits", {}) for container in pod["spec"]["containers"])


def test_of_a_runs_pods_only_those_with_gpus_are_queued(cluster: Cluster, workspace):
    site = queued(cluster)
    run = site.submit(workspace("queued"))
    site.wait_for(run, lambda node: node.get("templateName") == "tune" and node["type"] == "Pod")
    tune = site.pod_of(run, "tune")
    pods = site.get("pods", "", "--selector", f"workflows.argoproj.io/workflow={run}")["items"]
    site.argo("terminate", run)
    labels = {pod["metadata"]["name"]: pod["metadata"]["labels"].get(QUEUE_LABEL) for pod in pods}
    assert len(labels) >= 4, labels
    assert {name for name, queue in labels.items() if queue} == {tune}
    assert {pod["metadata"]["name"] for pod in pods if requests_gpus(pod)} == {tune}
    assert labels[tune] == QUEUE


def test_the_servers_of_a_rollout_are_queued(cluster: Cluster, registry: str, tmp_path: Path):
    site = queued(cluster)
    image = push_adapter(registry, tmp_path, "queued")
    run = site.submit(write_service(tmp_path, "queued-service", image))
    site.wait_for_node(run, "rollout", "Running")
    site.wait("deployment/queued-service", "create")
    template = site.get("deployment", "queued-service")["spec"]["template"]
    site.argo("terminate", run)
    site.finish(run)
    site.kubectl("delete", "deployment", "queued-service")
    assert requests_gpus(template)
    assert template["metadata"]["labels"][QUEUE_LABEL] == QUEUE
