"""Servers on several nodes: the real API server stores their objects, created with the account of the rollout.

No image is needed: the pods wait for one that does not exist. A cluster without LeaderWorkerSet gets its CRD.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import custom_resources
import pytest
from real_cluster import Cluster

from steps.rollout import rollout_cluster, service_group, service_manifests
from steps.rollout.service_release import STABLE
from steps.rollout.settings import Settings

SCHEMA = Path(__file__).parents[1] / "data" / "lws" / "leaderworkerset-crd.json"
NODES = 2


@pytest.fixture(scope="module")
def leader_worker_sets(cluster: Cluster) -> Iterator[None]:
    kind = service_group.LEADER_WORKER_SETS
    definition = custom_resources.definition(kind, "LeaderWorkerSet", json.loads(SCHEMA.read_text()))
    with cluster.custom_resource(definition):
        yield


def settings(group: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "work": Path("/mnt/work"), "name": f"{group[:8]}-server", "preset": "smollm2-135m-instruct",
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "abc", "serve_image": "localhost/absent:1",
        "gpus": 1, "nodes": NODES, "replicas": 1, "group_kind": group, "context_length": 2048,
    }  # fmt: skip
    return Settings(**values | changes)


@pytest.mark.usefixtures("leader_worker_sets")
@pytest.mark.parametrize("group", ["statefulset", "leaderworkerset"])
def test_the_api_server_stores_a_group(cluster: Cluster, group: str):
    wanted = settings(group)
    release = rollout_cluster.build_release(wanted, group)
    workload = service_manifests.workload(wanted.name, STABLE, release, scaled=False, deadline=900)
    bodies = [body for _, body in [*workload, *service_manifests.supporting_objects(wanted, group, grouped=True)]]
    rollout = cluster.as_account("argotune-rollout")
    for body in bodies:
        rollout.kubectl("create", "--validate=strict", "--filename", "-", stdin=json.dumps(body))
    owner = service_group.set_name(wanted.name, group)
    spec = cluster.get(group, owner)["spec"]
    size = spec["replicas"] if group == "statefulset" else spec["leaderWorkerTemplate"]["size"]
    assert size == NODES
    selector = cluster.get("service", wanted.name)["spec"]["selector"]
    assert selector.items() >= service_group.server_selector(group).items()
    if group == "statefulset":
        _check_pods(cluster, owner, selector)
    for body in bodies:
        cluster.kubectl("delete", body["kind"], body["metadata"]["name"])


def _check_pods(cluster: Cluster, owner: str, selector: dict[str, Any]) -> None:
    """Check that the controller creates a pod for each node, and that the Service selects the first one."""
    for rank in range(NODES):
        cluster.wait(f"pod/{owner}-{rank}", "create")
    labels = ",".join(f"{key}={value}" for key, value in selector.items())
    selected = cluster.get("pods", "", "--selector", labels)["items"]
    assert [pod["metadata"]["name"] for pod in selected] == [f"{owner}-0"]
