"""Volume claims are checked before a pod mounts them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kubernetes_server import KubernetesServer

from steps.claims.settings import Settings
from steps.claims.step import claims
from steps.runtime.errors import BadInput, StepError


@pytest.fixture
def cluster(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    cluster.kubeconfig(tmp_path / "kubeconfig", user="claims")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    return cluster


def put_claim(cluster: KubernetesServer, name: str, phase: str, storage_class: str = "fast", **metadata: Any) -> None:
    meta = {"name": name, "namespace": "argotune", **metadata}
    spec = {"storageClassName": storage_class}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    cluster.put({**kind, "metadata": meta, "spec": spec, "status": {"phase": phase}})


def put_class(cluster: KubernetesServer, name: str, mode: str) -> None:
    kind = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    cluster.put({**kind, "provisioner": "x", "volumeBindingMode": mode})


def check(folder: Path, *names: str) -> str:
    return claims(Settings(work=folder, claims=list(names))).summary


def test_bound_claims(cluster: KubernetesServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_claim(cluster, "rows", "Bound")
    put_claim(cluster, "adapter", "Bound")
    assert check(tmp_path, "rows", "adapter") == "volume claim rows exists; volume claim adapter exists"
    assert capsys.readouterr().out == "ok: volume claim rows exists\nok: volume claim adapter exists\n"
    rights = {(verb, resource) for verb, _, resource in cluster.verbs("claims")}
    assert rights == {("get", "persistentvolumeclaims")}


def test_all_claims_that_cannot_be_mounted_are_reported(cluster: KubernetesServer, tmp_path: Path) -> None:
    put_claim(cluster, "lost", "Lost")
    put_claim(cluster, "rows", "Bound")
    with pytest.raises(BadInput) as caught:
        check(tmp_path, "missing", "rows", "lost")
    assert caught.value.message == (
        "2 errors, nothing was created: (1) volume claim missing not found; (2) volume claim lost has lost its volume"
    )
    assert "kubectl get pvc --namespace argotune" in caught.value.fix


def test_a_claim_that_is_being_deleted(cluster: KubernetesServer, tmp_path: Path) -> None:
    put_claim(cluster, "rows", "Bound", deletionTimestamp="2026-11-29T00:00:00Z", finalizers=["in-use"])
    with pytest.raises(BadInput, match="volume claim rows is being deleted"):
        check(tmp_path, "rows")


def test_a_claim_without_a_volume_can_get_one(cluster: KubernetesServer, tmp_path: Path) -> None:
    """A claim with late binding gets its volume from the first pod; any other one must have it before."""
    put_claim(cluster, "rows", "Pending")
    with pytest.raises(StepError, match="volume claim rows is Pending") as caught:
        check(tmp_path, "rows")
    assert caught.value.exit_code == 1, "is retried"
    put_class(cluster, "fast", "Immediate")
    with pytest.raises(StepError, match="volume claim rows is Pending"):
        check(tmp_path, "rows")
    put_class(cluster, "late", "WaitForFirstConsumer")
    put_claim(cluster, "rows", "Pending", "late")
    assert check(tmp_path, "rows") == "volume claim rows exists"
    put_claim(cluster, "rows", "Pending", "")
    with pytest.raises(StepError, match="volume claim rows is Pending"):
        check(tmp_path, "rows")


def test_a_missing_permission_is_no_error(cluster: KubernetesServer, tmp_path: Path) -> None:
    cluster.forbidden = {("get", "persistentvolumeclaims")}
    assert check(tmp_path, "rows").startswith("volume claim rows was not checked: cannot get persistentvolumeclaims")
    put_claim(cluster, "rows", "Pending")
    cluster.forbidden = {("get", "storageclasses")}
    assert check(tmp_path, "rows") == "volume claim rows exists"


def test_a_local_run_has_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert check(tmp_path, "rows") == "not checked: local run"
