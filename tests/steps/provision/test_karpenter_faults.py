"""Every call of provision and release fails once in each way: one node is created, and it is released."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import fault_table
import pytest
from faults import Faults, kill_proof, read_timeout
from karpenter_controller import A100, H100, Controller, Pod
from kubernetes_server import KubernetesServer

from steps.kubernetes import client as kubernetes_client

Action = Callable[[Pod], object]


def tried(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, call: int, *, first: Action, action: Action, left: int
) -> tuple[Faults, str]:
    """Run ``action`` after ``first`` with one fault, again if it was killed; ``left`` machines must be there then."""
    monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, read_timeout(kind)))
    with KubernetesServer() as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(folder / "kubeconfig")))
        controller = Controller(cluster, unavailable={(A100, "on-demand")})
        pod = Pod(cluster, folder)
        first(pod)
        cluster.faults.calls.clear()
        pod.waits.clear()
        if kind:
            cluster.faults.fail(kind, call)
        if kind == "killed":
            assert not kill_proof(cluster.faults, lambda: action(pod)), "it was not killed"
        outcome = "succeeds after a restart" if kind == "killed" else "succeeds on retry"
        action(pod)
        calls = list(cluster.faults.calls)
        assert kind != "429" or 7.0 in pod.waits
        machines = len(controller.machines)
        assert controller.launched == [f"{H100} on-demand"] and machines == left
        assert len(cluster.all("nodeclaims")) == left and len(cluster.all("nodes")) == left
        assert len(cluster.all("nodepools")) == 2 * left
        pod.release()
        assert (controller.machines, cluster.all("nodeclaims"), cluster.all("nodepools")) == (set(), [], [])
        cluster.faults.calls[:] = calls
        return cluster.faults, outcome


def provision(pod: Pod) -> object:
    return pod.provision(fallback_instance_types=[H100])


def nothing(pod: Pod) -> None:
    """Begin with an empty cluster."""


def test_provision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(kind: str, call: int) -> tuple[Faults, str]:
        return tried(tmp_path, monkeypatch, kind, call, first=nothing, action=provision, left=1)

    rows = fault_table.sweep("provision", run, sample=3)
    fault_table.check("provision: Karpenter nodes", rows, sample=True)


def test_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(kind: str, call: int) -> tuple[Faults, str]:
        return tried(tmp_path, monkeypatch, kind, call, first=provision, action=Pod.release, left=0)

    rows = fault_table.sweep("release", run, sample=3)
    fault_table.check("release: Karpenter nodes", rows, sample=True)
