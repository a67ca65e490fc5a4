"""``argotune gc`` lists the nodes that runs created, and deletes only orphaned ones."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from arm_fixture import CLUSTER_REF, NAMESPACE, RUN, Pod, serve_pod
from arm_server import A100
from kubernetes_server import KubernetesServer

from steps.provision import aks, aks_pool
from steps.runtime import deadline
from steps.runtime.errors import StepError
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
    """The API of the cluster of the pools, with the Workflow of the live run; its nodes are not read."""
    monkeypatch.delenv("KUBECONFIG")
    pod.server.azure.fqdn = "127.0.0.1"
    cluster.put(workflow("Running"))
    return cluster


def workflow(phase: str, uid: str = LIVE) -> dict[str, Any]:
    metadata = {"name": "other-1", "namespace": NAMESPACE, "uid": uid}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata, "status": {"phase": phase}}


@pytest.fixture
def gc(pod: Pod, cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> Gc:
    """``gc(...)`` on a cluster with the pool of a deleted run, created 30 hours ago, and that of a live run."""
    now = datetime.datetime.now(datetime.UTC)
    pod.now = now - datetime.timedelta(hours=30)
    pod.provision()
    pod.now = now - datetime.timedelta(minutes=11)
    pod.provision(run=LIVE, workflow="other-1", workspace="other")
    monkeypatch.setenv("KUBECONFIG", str(pod.work / "kubeconfig"))
    monkeypatch.setattr(deadline.Deadline, "__call__", lambda self, seconds: pod.waits.append(seconds))
    nodes = {key: value for key, value in CLUSTER_REF.items() if key != "resource_group"}
    site = pod.work / "site.yaml"
    site.write_text(yaml.safe_dump({"nodes": {**nodes, "resourceGroup": CLUSTER_REF["resource_group"]}}))
    return lambda *args: main(["gc", "--site", str(site), *args])


def test_nodes_are_listed_with_age_and_lease(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert gc() == 0
    out, err = capsys.readouterr()
    head, lost, live = [[cell.strip() for cell in line.split("   ") if cell] for line in out.splitlines()]
    assert head == ["NAME", "WORKSPACE", "SIZE", "NODES", "STATE", "AGE", "LEASE", "REASON"]
    assert lost == [LOST_POOL, "tuned", A100, "1", "Succeeded", "30h", "over 4h", "run is gone"]
    assert live[-3:] == ["11m", "25h", "-"]
    assert err == f"--yes deletes {LOST_POOL}\n"
    assert set(pod.server.azure.pools) == {LOST_POOL, LIVE_POOL}


def test_yes_deletes_orphaned_nodes(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == {LIVE_POOL}
    assert f"deleted {LOST_POOL} of tuned-x7k2m" in capsys.readouterr().out
    assert gc("--yes") == 0
    assert "no orphaned nodes" in capsys.readouterr().err
    assert set(pod.server.azure.pools) == {LIVE_POOL}


@pytest.mark.parametrize(
    ("existing", "reason"),
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
def test_nodes_of_an_ended_run_are_orphaned(
    pod: Pod, gc: Gc, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str], existing: Any, reason: str
) -> None:
    workflows = cluster.resource("workflows")
    cluster.delete(cluster.get(workflows, NAMESPACE, "other-1"), {})
    if existing:
        cluster.put(existing)
    capsys.readouterr()
    assert gc("-o", "json") == 0
    _, live = json.loads(capsys.readouterr().out)
    assert (live["name"], live["reason"], live["leftBehind"]) == (LIVE_POOL, reason, bool(reason))
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == (set() if reason else {LIVE_POOL})


@pytest.mark.parametrize("trouble", ["forbidden", "elsewhere", "no Argo", "no kubeconfig", "no tag"])
def test_only_the_lease_counts_if_runs_cannot_be_looked_up(
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
    messages = {
        "forbidden": "workflows is forbidden",
        "elsewhere": "the kubeconfig selects 127.0.0.1, not the cluster of these nodes",
        "no Argo": "the cluster has no workflows.argoproj.io",
        "no kubeconfig": "cannot use ",
        "no tag": f"{LIVE_POOL} has no tags of its run",
    }
    capsys.readouterr()
    assert gc("-o", "json") == 0
    out, err = capsys.readouterr()
    assert [item["reason"] for item in json.loads(out)] == ["lease expired", ""]
    assert "cannot look up runs, only leases count: " in err and messages[trouble] in err
    assert gc("--yes") == 0
    assert set(pod.server.azure.pools) == {LIVE_POOL}


@pytest.mark.parametrize("name", [LIVE_POOL, LIVE, "other-1"])
def test_named_nodes_are_deleted_whatever_their_lease(pod: Pod, gc: Gc, name: str) -> None:
    assert gc(name) == 0
    assert set(pod.server.azure.pools) == {LOST_POOL, LIVE_POOL}, "not without --yes"
    assert gc(name, "--yes") == 0
    assert set(pod.server.azure.pools) == {LOST_POOL}


def test_unknown_names_are_rejected(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    assert gc(LOST_POOL, "atypo", "another", "--yes") == 2
    stderr = capsys.readouterr().err
    assert 'nodes "atypo" not found' in stderr and 'nodes "another" not found' in stderr
    assert f"use one of {LOST_POOL}, {LIVE_POOL}" in stderr
    assert len(pod.server.azure.pools) == 2


def test_output_formats(gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_failed_deletion_does_not_prevent_others(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.undeletable = LOST_POOL
    assert gc(LOST_POOL, LIVE_POOL, "--yes") == 1
    assert set(pod.server.azure.pools) == {LOST_POOL}
    stderr = capsys.readouterr().err
    assert f"cannot delete node pool {LOST_POOL}: PodDrainFailure" in stderr


def test_a_failed_request_is_reported(pod: Pod, gc: Gc, capsys: pytest.CaptureFixture[str]) -> None:
    pod.server.azure.forbidden = "agentPools"
    assert gc() == 2
    assert "AuthorizationFailed" in capsys.readouterr().err


def test_terminal_codes_of_a_response_are_not_executed(
    pod: Pod, gc: Gc, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise StepError("cannot delete: \x1b]0;title\x07")

    monkeypatch.setattr(aks, "remove", fail)
    assert gc(LOST_POOL, "--yes") == 1
    assert capsys.readouterr().err == "error: cannot delete: \\x1b]0;title\\x07\n"


def test_a_provider_without_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site.yaml").write_text("namespace: ml\n")
    assert main(["gc", "--site", str(tmp_path / "site.yaml")]) == 0
    assert "runs create no nodes with provider autoscaler" in capsys.readouterr().err
