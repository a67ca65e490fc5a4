"""Servers on several nodes: the real API server accepts what the rollout creates, with the rollout's own account.

The pods do not become ready: the images of the tests have no vLLM. A cluster without LeaderWorkerSet gets its CRD.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import custom_resources
import pytest
from real_cluster import Cluster
from served_model import push_adapter
from workspaces import write_service

from steps.rollout import service_group

SCHEMA = Path(__file__).parents[1] / "data" / "lws" / "leaderworkerset-crd.json"
NODES = 2


@pytest.fixture(scope="module")
def leader_worker_sets(cluster: Cluster) -> Iterator[None]:
    kind = service_group.LEADER_WORKER_SETS
    definition = custom_resources.definition(kind, "LeaderWorkerSet", json.loads(SCHEMA.read_text()))
    with cluster.custom_resource(definition):
        yield


@pytest.mark.usefixtures("leader_worker_sets")
@pytest.mark.parametrize("group", ["statefulset", "leaderworkerset"])
def test_the_api_server_accepts_a_group(cluster: Cluster, registry: str, tmp_path: Path, group: str):
    name = f"{group[:8]}-server"
    image = push_adapter(registry, tmp_path, name)
    rollout = {"runtime": "vllm", "nodes": NODES, "groupKind": group, "replicas": 1}
    run = cluster.submit(write_service(tmp_path, name, image, rollout=rollout))
    owner = service_group.set_name(name, group)
    cluster.kubectl("wait", f"{group}/{owner}", "--for=create", "--timeout=600s")
    spec = cluster.get(group, owner)["spec"]
    selector = cluster.get("service", name)["spec"]["selector"]
    if group == "statefulset":
        _check_pods(cluster, owner, selector)
        assert spec["replicas"] == NODES
    else:
        assert spec["leaderWorkerTemplate"]["size"] == NODES
    assert selector.items() >= service_group.server_selector(group).items()
    cluster.argo("terminate", run)
    cluster.finish(run)
    cluster.kubectl("delete", group, owner)


def _check_pods(cluster: Cluster, owner: str, selector: dict[str, Any]) -> None:
    """Check that the controller creates a pod for each node, and that the Service selects the first one."""
    for rank in range(NODES):
        cluster.kubectl("wait", f"pod/{owner}-{rank}", "--for=create", "--timeout=120s")
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    assert [pod["metadata"]["name"] for pod in cluster.get("pods", "", "--selector", labels)["items"]] == [
        f"{owner}-0"
    ]
