"""Rollouts that change between a Deployment and groups of nodes, on fake controllers with real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from group_cluster import GroupServers
from kubernetes_server import KubernetesServer
from rollout_sample import NAME, nap, run, version
from serving_cluster import NAMESPACE

from steps.kubernetes import client as kubernetes_client
from steps.rollout import rollout_cluster, service_change, service_release, service_update
from steps.rollout.settings import Settings
from steps.runtime.errors import BadInput, StepError
from steps.serving import serving_client

Changes = dict[str, Any]
DEPLOYMENT: Changes = {"replicas": 1}
LEADER_WORKER_SET: Changes = {"nodes": 3, "replicas": 1, "group_kind": "leaderworkerset"}
STATEFUL_SET: Changes = {"nodes": 3, "replicas": 1, "group_kind": "statefulset"}
SHAPES = {"deployment": DEPLOYMENT, "leaderworkerset": LEADER_WORKER_SET, "statefulset": STATEFUL_SET}
OBJECTS = {
    "deployment": {("deployments", NAME)},
    "leaderworkerset": {("leaderworkersets", f"{NAME}-group")},
    "statefulset": {("statefulsets", f"{NAME}-nodes"), ("services", f"{NAME}-nodes")},
}
PAIRS = [(one, other) for one in SHAPES for other in SHAPES if one != other]
SOME_PAIRS = [("deployment", "leaderworkerset"), ("statefulset", "deployment"), ("leaderworkerset", "statefulset")]
BROKEN = '"max-model-len": 64'


pytestmark = pytest.mark.usefixtures("quick", "in_pod")


@pytest.fixture
def servers(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GroupServers]:
    running = GroupServers(cluster, tmp_path / "pods", NAME)
    monkeypatch.setattr(rollout_cluster, "service_address", lambda _, name: running.service(name))
    yield running
    running.close()


def objects(cluster: KubernetesServer) -> set[tuple[str, str]]:
    """Return plural and name of the objects with pods, and of the Services except that of the requests."""
    kinds = ("deployments", "leaderworkersets", "statefulsets", "services")
    found = {(kind, one["metadata"]["name"]) for kind in kinds for one in cluster.all(kind)}
    assert ("services", NAME) in found
    return found - {("services", NAME)}


def answer(servers: GroupServers) -> str:
    return serving_client.complete(servers.service(NAME), "tuned", "x", 5, 20)


def is_clean(cluster: KubernetesServer, kind: str) -> bool:
    """Return True if the cluster has the objects, pods and adapters of one kind, and no others."""
    known = service_release.read_releases(kubernetes_client.connect(nap), NAME)
    maps = {f"{NAME}-adapters-{one.revision}" for one in known.retained()} | {f"{NAME}-releases"}
    num_pods = len(cluster.all("pods"))
    return (
        objects(cluster) == OBJECTS[kind]
        and num_pods == (1 if kind == "deployment" else 3)
        and {one["metadata"]["name"] for one in cluster.all("configmaps")} == maps
    )


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_kind_replaces_the_other_and_back(
    first: str, second: str, cluster: KubernetesServer, servers: GroupServers,
    settings: Callable[..., Settings], images: dict[str, str],
) -> None:  # fmt: skip
    run(settings("one", **SHAPES[first]))
    service = cluster.read("services", NAME, NAMESPACE)
    for name, kind in (("two", second), ("one", first)):
        assert run(settings(name, **SHAPES[kind])).answer == f"I am {version(images, name)}."
        assert is_clean(cluster, kind)
        assert answer(servers) == f"I am {version(images, name)}."
    assert service and cluster.read("services", NAME, NAMESPACE)["metadata"]["uid"] == service["metadata"]["uid"]  # type: ignore[index]
    assert (servers.misrouted, servers.num_unserved) == ([], 0)


@pytest.mark.parametrize(
    ("live", "failing", "trouble"),
    [
        *((live, failing, "not ready") for live, failing in [*PAIRS, *((kind, kind) for kind in SHAPES)]),
        ("deployment", "leaderworkerset", "no answer"),
        ("statefulset", "deployment", "no answer"),
    ],
)
def test_what_was_live_is_restored(
    live: str, failing: str, trouble: str, cluster: KubernetesServer, servers: GroupServers,
    settings: Callable[..., Settings], images: dict[str, str],
) -> None:  # fmt: skip
    run(settings("one", **SHAPES[live]))
    if trouble == "not ready":
        servers.broken, message = BROKEN, "exited with code 1"
    else:
        servers.mute, message = {version(images, "two")}, "CUDA error"
    with pytest.raises(StepError, match=message):
        run(settings("two", server_arguments={"max-model-len": 64}, **SHAPES[failing]))
    assert is_clean(cluster, live)
    assert answer(servers) == f"I am {version(images, 'one')}."
    assert servers.misrouted == []
    if live != failing:
        assert servers.num_unserved == 0
    servers.broken, servers.mute = "", set()
    assert run(settings("two", **SHAPES[failing])).answer == f"I am {version(images, 'two')}."
    assert is_clean(cluster, failing)


@pytest.mark.parametrize("kind", ["leaderworkerset", "statefulset"])
def test_a_first_group_that_is_not_ready_is_deleted(
    kind: str, cluster: KubernetesServer, servers: GroupServers, settings: Callable[..., Settings]
) -> None:
    servers.broken = BROKEN
    with pytest.raises(StepError, match="exited with code 1"):
        run(settings("two", server_arguments={"max-model-len": 64}, **SHAPES[kind]))
    assert objects(cluster) == set() and not cluster.all("pods")
    run(settings("one", **DEPLOYMENT))
    assert is_clean(cluster, "deployment") and servers.misrouted == []


@pytest.mark.parametrize(("live", "killed"), SOME_PAIRS)
def test_what_a_killed_run_has_left_is_deleted(
    live: str, killed: str, cluster: KubernetesServer, servers: GroupServers,
    settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run(settings("one", **SHAPES[live]))
    servers.broken = BROKEN
    with monkeypatch.context() as patch:
        patch.setattr(service_update, "rollback", lambda *_: None)  # as SIGKILL
        with pytest.raises(StepError, match="exited with code 1"):
            run(settings("two", server_arguments={"max-model-len": 64}, **SHAPES[killed]))
    assert objects(cluster) == OBJECTS[live] | OBJECTS[killed]
    run(settings("wide", **SHAPES[live]))
    assert is_clean(cluster, live) and servers.misrouted == []


@pytest.mark.parametrize(("first", "second"), SOME_PAIRS)
def test_rollback_returns_to_the_other_kind(
    first: str, second: str, cluster: KubernetesServer, servers: GroupServers,
    settings: Callable[..., Settings], images: dict[str, str],
) -> None:  # fmt: skip
    run(settings("one", **SHAPES[first]))
    run(settings("two", **SHAPES[second]))
    client = kubernetes_client.connect(nap)
    for name, kind in (("one", first), ("two", second)):
        assert version(images, name) in service_change.rollback(client, NAME, 30, nap)
        assert answer(servers) == f"I am {version(images, name)}." and is_clean(cluster, kind)
    assert (servers.misrouted, servers.num_unserved) == ([], 0)


@pytest.mark.parametrize("kind", ["leaderworkerset", "statefulset"])
def test_another_adapter_replaces_all_pods_of_a_group(
    kind: str, cluster: KubernetesServer, servers: GroupServers,
    settings: Callable[..., Settings], images: dict[str, str],
) -> None:  # fmt: skip
    run(settings("one", **SHAPES[kind]))
    started = {pod["metadata"]["uid"] for pod in cluster.all("pods")}
    assert run(settings("one", **SHAPES[kind])).answer == f"I am {version(images, 'one')}."
    assert {pod["metadata"]["uid"] for pod in cluster.all("pods")} == started, "unchanged servers were replaced"
    assert run(settings("two", **SHAPES[kind])).answer == f"I am {version(images, 'two')}."
    assert not started & {pod["metadata"]["uid"] for pod in cluster.all("pods")} and is_clean(cluster, kind)


def test_servers_of_several_nodes_are_added_and_removed(
    cluster: KubernetesServer, servers: GroupServers, settings: Callable[..., Settings]
) -> None:
    for replicas in (1, 2, 1):
        run(settings("one", **LEADER_WORKER_SET | {"replicas": replicas}))
        assert len(servers.ready()) == len(cluster.all("pods")) == 3 * replicas


def test_a_canary_is_rejected_next_to_a_group(
    cluster: KubernetesServer, servers: GroupServers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings("one", **LEADER_WORKER_SET))
    with pytest.raises(BadInput, match=r"pipeline\.rollout\.canary cannot be combined with live servers of 3 nodes"):
        run(settings("two", canary=20, **DEPLOYMENT))
    assert answer(servers) == f"I am {version(images, 'one')}." and is_clean(cluster, "leaderworkerset")


def test_a_gateway_with_deployments_replaces_a_group(
    cluster: KubernetesServer, servers: GroupServers, settings: Callable[..., Settings], images: dict[str, str]
) -> None:
    run(settings("one", **STATEFUL_SET))
    assert run(settings("two", gateway="web/front", **DEPLOYMENT)).answer == f"I am {version(images, 'two')}."
    assert (servers.misrouted, servers.num_unserved) == ([], 0)
    stable = cluster.read("services", f"{NAME}-stable", NAMESPACE)
    assert stable and len(servers.ready(**stable["spec"]["selector"])) == 1
