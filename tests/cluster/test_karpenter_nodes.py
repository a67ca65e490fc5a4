"""Nodes of a run by the real Karpenter with its fake cloud, whose nodes have no kubelet."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from real_cluster import Cluster

FALLBACK = "Standard_NV36ads_A10_v5"
UNAVAILABLE = "Standard_NC40ads_H100_v5"
RUN_LABEL = "argotune.dev/run"


@pytest.fixture(scope="module")
def karpenter(cluster: Cluster) -> Cluster:
    """The installation with a site profile whose runs create nodes of a class that argotune does not know."""
    if not cluster.kubectl("get", "crd", "kwoknodeclasses.karpenter.kwok.sh", "--ignore-not-found"):
        if os.environ.get("ARGOTUNE_REQUIRE_TOOLS") == "1":
            pytest.fail("Karpenter is not installed, and ARGOTUNE_REQUIRE_TOOLS=1")
        pytest.skip("Karpenter is not installed (CONTRIBUTING.md, Cluster tests)")
    nodes = {"provider": "karpenter", "nodeClass": "KWOKNodeClass.karpenter.kwok.sh/default", "lease": "26h"}
    # Without a kubelet, a pod on such a node would never end.
    nowhere = {"tune": {"nodeSelector": {"argotune-test": "nowhere"}}}

    def change(profile: dict[str, Any]) -> None:
        profile["nodes"] = nodes
        profile["pods"] |= nowhere

    return cluster.with_site("karpenter", change)


@pytest.fixture
def submitted(karpenter: Cluster, workspace) -> Callable[..., str]:
    """Return a function that submits a run whose first instance type is unavailable, and waits for its nodes."""

    def submit(name: str, **nodes: Any) -> str:
        resource = {"instanceType": UNAVAILABLE, "labelSelector": {"matchLabels": {"app": name}}}
        pipeline = {"nodes": {"fallbackInstanceTypes": [FALLBACK], **nodes}}
        run = karpenter.submit(workspace(name, resource=resource, pipeline=pipeline))
        karpenter.wait_for_node(run, "provision", "Succeeded")
        return run

    return submit


def nodes_of(cluster: Cluster, run: str) -> list[dict[str, Any]]:
    """Return the nodes that were created for a run."""
    uid = cluster.get("workflow", run)["metadata"]["uid"]
    return list(cluster.get("nodes", "", "--selector", f"{RUN_LABEL}={uid}")["items"])


def objects_of(cluster: Cluster, uid: str) -> list[str]:
    """Return the NodePools and NodeClaims of a run."""
    items = cluster.get("nodepools,nodeclaims", "", "--selector", f"{RUN_LABEL}={uid}")["items"]
    return [item["metadata"]["name"] for item in items]


def test_a_run_gets_a_spot_node_of_the_fallback_size_and_releases_it(karpenter: Cluster, submitted):
    run = submitted("spot", spot=True)
    log = karpenter.argotune("logs", run, "--step", "provision")
    assert f"unavailable: {UNAVAILABLE} (spot)" in log
    [node] = nodes_of(karpenter, run)
    labels = node["metadata"]["labels"]
    assert labels["node.kubernetes.io/instance-type"] == FALLBACK
    assert labels["karpenter.sh/capacity-type"] == "spot"
    assert labels["app"] == "spot"
    assert {"key": "sku", "value": "gpu", "effect": "NoSchedule"} in node["spec"]["taints"]
    uid = karpenter.get("workflow", run)["metadata"]["uid"]
    [listed] = [entry for entry in json.loads(karpenter.argotune("gc", "--output", "json")) if entry["run"] == uid]
    lease = datetime.datetime.fromisoformat(listed["leaseUntil"]) - datetime.datetime.fromisoformat(listed["made"])
    assert datetime.timedelta(hours=26) <= lease < datetime.timedelta(hours=27)
    assert not listed["leftBehind"]
    karpenter.argotune("stop", "--cluster", run)
    workflow = karpenter.finish(run)
    [released] = [node for node in workflow["status"]["nodes"].values() if node.get("templateName") == "release"
                  and node["type"] == "Pod"]  # fmt: skip
    assert released["phase"] == "Succeeded"
    assert not objects_of(karpenter, uid)
    assert not nodes_of(karpenter, run)


def test_gc_deletes_the_nodes_of_a_deleted_run(karpenter: Cluster, submitted):
    run = submitted("lost")
    uid = karpenter.get("workflow", run)["metadata"]["uid"]
    assert nodes_of(karpenter, run)
    karpenter.kubectl("delete", "workflow", run)
    [listed] = [entry for entry in json.loads(karpenter.argotune("gc", "--output", "json")) if entry["run"] == uid]
    assert listed["reason"] == "run is gone"
    karpenter.argotune("gc", uid, "--yes", timeout=300)
    assert not objects_of(karpenter, uid)
    assert not karpenter.get("nodes", "", "--selector", f"{RUN_LABEL}={uid}")["items"]


def test_no_available_size_ends_the_run_with_the_reason_of_each(karpenter: Cluster, workspace):
    resource = {"instanceType": UNAVAILABLE, "labelSelector": {"matchLabels": {"app": "none"}}}
    run = karpenter.submit(workspace("none", resource=resource))
    workflow = karpenter.finish(run)
    assert workflow["status"]["phase"] == "Failed"
    status = karpenter.argotune("status", run)
    assert f"{UNAVAILABLE} is not available" in status
    assert "fallbackInstanceTypes" in status
    assert not objects_of(karpenter, workflow["metadata"]["uid"])
