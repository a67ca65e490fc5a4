"""``argotune gc``: what runs have made on a cluster, and that only what no run owns any more is deleted."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from arm_fixture import NAMESPACE, PLACE, RUN, Pod, serve_pod
from arm_server import A100
from kubernetes_server import KubernetesServer

from steps.provision import aks_pool
from steps.runtime import deadline
from workflows.cli import main

LIVE = "99999999-2222-3333-4444-555555555555"
LOST_POOL, LIVE_POOL = aks_pool.name(RUN), aks_pool.name(LIVE)
Gc = Callable[..., int]


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


@pytest.fixture
def cluster(cluster: KubernetesServer, pod: Pod, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    """The API of the cluster that the pools are of, with the Workflow of the live run; its nodes are not looked at."""
    monkeypatch.delenv("KUBECONFIG")
    pod.server.azure.fqdn = "127.0.0.1"
    cluster.put(workflow("Running"))
    return cluster


def workflow(phase: str, uid: str = LIVE) -> dict[str, Any]:
    metadata = {"name": "other-1", "namespace": NAMESPACE, "uid": uid}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "status": {"phase": phase}}


@pytest.fixture
def gc(pod: Pod, cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> Gc:
    """``gc(...)`` on a cluster with the pool of a lost run, made 30 hours ago, and one of a live run."""
    now = datetime.datetime.now(datetime.UTC)
    pod.now = now - datetime.timedelta(hours=30)
    pod.provision()
    pod.now = now - datetime.timedelta(minutes=11)
    pod.provision(run=LIVE, workflow="other-1", workspace="other")
    monkeypatch.setenv("KUBECONFIG", str(pod.work / "kubeconfig"))
    monkeypatch.setattr(deadline.Deadline, "__call__", lambda self, seconds: pod.waits.append(seconds))
    nodes = {key: value for key, value in PLACE.items() if key != "resource_group"}
    site = pod.work / "site.yaml"
    site.write_text(yaml.safe_dump({"nodes": {**nodes, "resourceGroup": PLACE["resource_group"]}}))
    return lambda *words: main(["gc", "--site", str(site), *words])


def test_all_is_listed_with_age_and_lease_and_nothing_deleted(
    pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert gc() == 0
    out, err = capsys.readouterr()
    head, lost, live = [[cell.strip() for cell in line.split("   ") if cell] for line in out.splitlines()]
    assert head == ["NAME", "WORKSPACE", "SIZE", "NODES", "STATE", "AGE", "LEASE", "REASON"]
    assert lost == [LOST_POOL, "tuned", A100, "1", "Succeeded", "30h", "over 4h", "run is gone"]
    assert live[-3:] == ["11m", "25h", "-"]
    assert err == f"--yes deletes {LOST_POOL}\n"
    assert set(pod.server.azure.pools) == {LOST_POOL, LIVE_POOL}


def test_yes_deletes_what_no_run_owns_any_more(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == {LIVE_POOL}
    assert f"deleted {LOST_POOL} of tuned-x7k2m" in capsys.readouterr().out
    assert gc("--yes") == 0
    assert "nothing is left behind" in capsys.readouterr().err
    assert set(pod.server.azure.pools) == {LIVE_POOL}


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (workflow("Succeeded"), "run ended"),
        (workflow("Failed"), "run ended"),
        (workflow("Error"), "run ended"),
        (workflow("Running", uid="another run of the same name"), "run is gone"),
        (None, "run is gone"),
        (workflow("Running"), ""),
        (workflow(""), ""),
    ],
)
def test_a_run_that_is_over_leaves_its_nodes_before_their_lease_ends(
    pod: Pod, gc: Gc, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str], there: Any, reason: str
) -> None:
    workflows = cluster.resource("workflows")
    cluster.delete(cluster.get(workflows, NAMESPACE, "other-1"), {})
    if there:
        cluster.put(there)
    capsys.readouterr()
    assert gc("-o", "json") == 0
    _, live = json.loads(capsys.readouterr().out)
    assert (live["name"], live["reason"], live["leftBehind"]) == (LIVE_POOL, reason, bool(reason))
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == (set() if reason else {LIVE_POOL})


@pytest.mark.parametrize("trouble", ["forbidden", "elsewhere", "no Argo", "no kubeconfig", "no tag"])
def test_where_runs_can_not_be_looked_up_the_lease_alone_decides(
    pod: Pod, gc: Gc, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, trouble: str,
) -> None:  # fmt: skip
    cluster.put(workflow("Failed"))
    if trouble == "forbidden":
        cluster.forbidden.add(("get", "workflows"))
    if trouble == "elsewhere":
        pod.server.azure.fqdn = "aks-ml.example"
    if trouble == "no Argo":
        cluster.without("argoproj.io")
    if trouble == "no kubeconfig":
        monkeypatch.setenv("KUBECONFIG", str(pod.work / "nothing"))
    if trouble == "no tag":
        for pool in pod.server.azure.pools.values():
            del pool.properties["tags"]["argotune-namespace"]
    told = {
        "forbidden": "workflows is forbidden",
        "elsewhere": "the kubeconfig leads to 127.0.0.1, not to the cluster of these nodes",
        "no Argo": "the cluster has no workflows.argoproj.io",
        "no kubeconfig": "does not lead to a cluster",
        "no tag": f"{LIVE_POOL} does not say where its run is",
    }
    capsys.readouterr()
    assert gc("-o", "json") == 0
    out, err = capsys.readouterr()
    assert [one["reason"] for one in json.loads(out)] == ["lease expired", ""]
    assert "only leases tell what is left behind: " in err and told[trouble] in err
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == {LIVE_POOL}


@pytest.mark.parametrize("name", [LIVE_POOL, LIVE, "other-1"])
def test_what_is_named_is_deleted_whatever_its_lease(pod: Pod, gc: Gc, name: str) -> None:
    assert gc(name) == 0
    assert set(pod.server.azure.pools) == {LOST_POOL, LIVE_POOL}, "not without --yes"
    assert gc(name, "--yes") == 0
    assert set(pod.server.azure.pools) == {LOST_POOL}


def test_names_of_nothing_are_refused_and_nothing_is_deleted(
    pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gc(LOST_POOL, "atypo", "another", "--yes") == 2
    said = capsys.readouterr().err
    assert "no nodes of 'atypo'" in said and "no nodes of 'another'" in said
    assert f"there is: {LOST_POOL}, {LIVE_POOL}" in said
    assert len(pod.server.azure.pools) == 2


def test_as_data(gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert gc("-o", "json") == 0
    lost, live = json.loads(capsys.readouterr().out)
    assert (lost["name"], lost["run"], lost["leftBehind"], live["leftBehind"]) == (LOST_POOL, RUN, True, False)
    assert gc("-o", "yaml") == 0
    assert yaml.safe_load(capsys.readouterr().out) == [lost, live]
    assert gc("-o", "name") == 0
    assert capsys.readouterr().out.split() == [LOST_POOL, LIVE_POOL]
    assert gc("-o", "wide") == 0
    assert RUN in capsys.readouterr().out


def test_one_that_cannot_be_deleted_does_not_keep_the_others(
    pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]
) -> None:
    pod.server.azure.undeletable = LOST_POOL
    assert gc(LOST_POOL, LIVE_POOL, "--yes") == 1
    assert set(pod.server.azure.pools) == {LOST_POOL}
    said = capsys.readouterr().err
    assert f"deleting node pool {LOST_POOL}: PodDrainFailure" in said


def test_a_cluster_that_cannot_be_asked_is_told(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.forbidden = "agentPools"
    assert gc() == 2
    assert "AuthorizationFailed" in capsys.readouterr().err


def test_where_runs_make_no_nodes_there_is_nothing_to_collect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "site.yaml").write_text("namespace: ml\n")
    assert main(["gc", "--site", str(tmp_path / "site.yaml")]) == 0
    assert "runs make no nodes here (provider autoscaler)" in capsys.readouterr().err
