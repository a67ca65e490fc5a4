from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kubernetes_server import KubernetesServer

from workflows.cluster import kubernetes_api
from workflows.cluster.kubernetes_api import KubernetesWorkflows


@pytest.fixture
def cluster(cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    """A cluster selected by the environment alone."""
    for name in ("ARGO_SERVER", "ARGO_TOKEN", "ARGO_NAMESPACE", "ARGOTUNE_SITE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ARGOTUNE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("NO_PROXY", "*")
    for name in ("argotune-models", "adapters", "oncall-adapter", "oncall-data"):  # of the examples
        metadata = {"name": name, "namespace": "argotune"}
        cluster.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}})
    return cluster


@pytest.fixture
def workflows_api(cluster: KubernetesServer, waits: list[float]) -> Callable[[], KubernetesWorkflows]:
    """``workflows_api()`` connects; its waits are recorded in ``waits``."""
    return lambda: kubernetes_api.connect(None, None, "", waits.append)
