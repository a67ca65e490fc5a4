"""The roles of ``argo/install`` are what the steps use of the Kubernetes API: no more, and no less.

Each account's step is run as its pod would, in all its turns, and the verbs are read off the calls that arrive.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from karpenter_controller import A100, H100, Controller, Pod
from kubernetes_manifests import build, granted
from kubernetes_server import KubernetesServer, condition

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import Kind, KubernetesClient
from steps.preflight import cluster_checks
from steps.preflight.settings import Settings as Preflight
from steps.provision import aks_nodes, existing_nodes
from steps.provision.node_providers import RUN_LABEL
from steps.provision.settings import Settings
from steps.runtime.errors import InsufficientCapacity
from steps.tune.layout import Layout
from steps.tune.node_job import FIRST, GROUP_LABEL
from steps.tune.node_pods import NodePods
from steps.tune.settings import Settings as Tune
from workflows.plan import site

Rights = set[tuple[str, str, str]]
ROOT = Path(__file__).parents[1]
EXECUTOR: Rights = {("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch")}
"""Service account of Argo's executor in each pod."""
BASIC_USER: Rights = {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}
"""Every account, by the ClusterRole system:basic-user of Kubernetes."""


@pytest.fixture(scope="module")
def rights() -> dict[str, Rights]:
    return granted(build(ROOT / "argo" / "install"))


@pytest.fixture
def cluster(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda wait=lambda seconds: None: connect(wait))
    monkeypatch.setattr(socket, "gethostname", lambda: "pod-of-the-step")  # that of a machine may be no name of a pod
    return cluster


def gpu_node(labels: dict[str, str]) -> dict[str, Any]:
    status = {"allocatable": {"nvidia.com/gpu": "1"}, "conditions": [condition("Ready")]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu", "labels": labels}, "status": status}


def provision(cluster: KubernetesServer, folder: Path) -> None:
    """Nodes of each provider: with a size that is unavailable, and an answer to each creation that is lost."""
    controller = Controller(cluster, unavailable={(A100, "on-demand")})
    for lost, run in ((1, "first"), (4, "second")):
        cluster.faults.fail("truncated", lost)
        Pod(cluster, folder).provision(run=run, fallback_instance_types=[H100])
        assert cluster.faults.happened
    assert len(controller.machines) == 2
    controller.failing = "QuotaExceeded"
    with pytest.raises(InsufficientCapacity):
        Pod(cluster, folder).provision(run="fourth", instance_type=H100)
    cluster.put(gpu_node({"apps": "tuned", RUN_LABEL: "third"}))
    there = Settings(work=folder, provider="existing", labels={"apps": "tuned", RUN_LABEL: "third"})
    assert existing_nodes.provision(there).nodes == ["gpu"]
    pool = Settings(work=folder, provider="aks", run="third")
    assert aks_nodes.wait_for_gpus(pool, 1, lambda seconds: None) == ["gpu"]


def release(cluster: KubernetesServer, folder: Path) -> None:
    """Release what provision created."""
    controller = Controller(cluster)
    Pod(cluster, folder).provision()
    cluster.calls.clear()
    Pod(cluster, folder).release()
    assert not controller.machines


def preflight(cluster: KubernetesServer, folder: Path) -> None:
    """All that can be asked is asked."""
    metadata = {"name": "models", "namespace": "argotune"}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}}
    cluster.put({**claim, "status": {"phase": "Bound"}})
    cluster.put({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}})
    given = Preflight(work=folder, storage_class="fast", claims=["models"])
    found = list(cluster_checks.check(given))
    assert found == ["storage class fast exists", "volume claim models exists"]


def tune(cluster: KubernetesServer, folder: Path) -> None:
    """The first of two nodes creates the other, watches it and deletes it; with JobSet, and without."""
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    mount = {"name": "models", "mountPath": "/mnt/models"}
    spec = {"containers": [{"name": "main", "volumeMounts": [mount]}], "volumes": [volume]}
    metadata = {"name": socket.gethostname(), "namespace": "argotune", "labels": {GROUP_LABEL: FIRST}}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    for job_kind in ("auto", "job"):
        nodes = NodePods(Tune.model_validate({"work": folder, "nodes": 2, "job_kind": job_kind}), Layout(1, 2, 0))
        nodes.polled = -1e9
        nodes.start(Layout(1, 2, 0, port=1), 0)
        assert len(cluster.all("jobsets" if job_kind == "auto" else "jobs")) == 1
        assert nodes.failure() is None
        nodes.stop()
        assert not cluster.all("jobs") and not cluster.all("jobsets")


STEPS: dict[str, Callable[[KubernetesServer, Path], None]] = {
    "argotune-provision": provision,
    "argotune-release": release,
    "argotune-preflight": preflight,
    "argotune-tune": tune,
}


def used(cluster: KubernetesServer) -> Rights:
    return {(group, resource, verb) for verb, group, resource in cluster.verbs() if verb != "discover"} - BASIC_USER


@pytest.mark.parametrize("account", STEPS)
def test_role_has_exactly_the_permissions_of_its_step(
    account: str,
    rights: dict[str, Rights],
    cluster: KubernetesServer,
    tmp_path: Path,
) -> None:
    cluster.kubeconfig(tmp_path / "kubeconfig", user=account)
    STEPS[account](cluster, tmp_path)
    assert used(cluster) | EXECUTOR == rights[account]


def test_every_account_of_a_step_is_tried(rights: dict[str, Rights]) -> None:
    elsewhere = {"argotune", "argotune-submitter", "argotune-rollout"}
    """The first has no step; the others are tested with their fixtures."""
    assert set(rights) - elsewhere == set(STEPS)
    assert rights["argotune"] == EXECUTOR


def test_a_call_that_is_not_in_the_role_would_be_seen(rights: dict[str, Rights], cluster: KubernetesServer) -> None:
    client: KubernetesClient = kubernetes_client.connect()
    client.list(Kind("v1", "secrets"))
    assert used(cluster) == {("", "secrets", "list")}
    assert not any(used(cluster) <= of_account for of_account in rights.values())


def test_site_profiles_of_the_page_on_nodes_are_right(rights: dict[str, Rights], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "NODES.md").read_text()
    profiles = re.findall(r"```yaml\n(# site\.yaml\n.+?)```", page, flags=re.DOTALL)
    providers = set()
    for text in profiles:
        (tmp_path / "site.yaml").write_text(text)
        values = site.load(str(tmp_path / "site.yaml"))
        providers.add(values["nodes.provider"])
        for step, account in values["serviceAccounts"].items():
            assert account in rights and account == f"argotune-{step}"
    assert providers == {"aks", "existing", "karpenter"}
