"""``argotune gc`` where runs make their nodes with Karpenter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import fault_table
import pytest
from faults import Faults, kill_proof, read_timeout
from karpenter_controller import A100, RUN, Controller, Pod
from kubernetes_server import KubernetesServer

from steps.kubernetes import client as kubernetes_client
from steps.provision import node_providers
from steps.provision.node_providers import RUN_LABEL
from steps.runtime.deadline import Deadline
from workflows.cli import main

LOST = "lost-run"
Gc = Callable[..., int]


@pytest.fixture
def gc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gc]:
    """The verb with a site profile; waits cost nothing."""
    (tmp_path / "site.yaml").write_text("nodes: {provider: karpenter}\n")
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda wait=None: connect(lambda seconds: None))
    monkeypatch.setattr(Deadline, "__call__", lambda pause, seconds: None)
    yield lambda *words: main(["gc", "--site", str(tmp_path / "site.yaml"), *words])


def two_runs(cluster: KubernetesServer, folder: Path, *, count: int) -> None:
    """A deleted run and a running one; both have long leases."""
    Controller(cluster)
    pod = Pod(cluster, folder)
    long = 100 * 365 * 86400
    pod.provision(run=LOST, workflow="lost-x", count=count, lease_seconds=long)
    pod.provision(lease_seconds=long)
    metadata = {"name": "tuned-x7k2m", "namespace": "argotune", "uid": RUN}
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata}
    cluster.put({**workflow, "status": {"phase": "Running"}})


def runs_left(cluster: KubernetesServer) -> set[str]:
    there = [*cluster.all("nodepools"), *cluster.all("nodeclaims"), *cluster.all("nodes")]
    return {document["metadata"]["labels"][RUN_LABEL] for document in there}


def test_what_lost_runs_left_is_listed_and_deleted(
    gc: Gc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with KubernetesServer() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
        two_runs(cluster, tmp_path, count=2)
        capsys.readouterr()
        assert gc("-o", "json") == 0
        found = {one["run"]: one for one in json.loads(capsys.readouterr().out)}
        assert set(found) == {LOST, RUN}
        assert (found[LOST]["nodes"], found[LOST]["size"], found[LOST]["leftBehind"]) == (2, A100, True)
        assert (found[RUN]["nodes"], found[RUN]["leftBehind"]) == (1, False)
        assert (found[LOST]["reason"], found[RUN]["reason"]) == ("run is gone", "")
        assert gc("--yes") == 0
        assert "deleted argotune-" in capsys.readouterr().out
        assert runs_left(cluster) == {RUN}
        assert gc(RUN, "--yes") == 0
        assert runs_left(cluster) == set()


@pytest.mark.slow
def test_faults(gc: Gc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(kind: str, call: int) -> tuple[Faults, str]:
        with KubernetesServer() as cluster:
            monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
            two_runs(cluster, tmp_path, count=1)
            cluster.faults.calls.clear()
            monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, read_timeout(kind)))
            if kind:
                cluster.faults.fail(kind, call)
            outcome = "succeeds on retry"
            if kind == "killed":
                assert not kill_proof(cluster.faults, lambda: gc("--yes")), "it was to be killed"
                outcome = "succeeds after a restart"
            assert gc("--yes") == 0
            assert runs_left(cluster) == {RUN}
            return cluster.faults, outcome

    rows = fault_table.sweep("gc", run, sample=2)
    fault_table.check("gc: Karpenter nodes", rows, sample=True)


def test_providers_are_found_by_name() -> None:
    assert {node_providers.provider(name).__name__ for name in node_providers.CREATING_PROVIDERS} == {
        "steps.provision.aks",
        "steps.provision.karpenter",
    }
