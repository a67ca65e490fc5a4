"""The role in ``argo/`` allows what the steps ask of Azure, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from arm_fixture import CLUSTER_REF, serve_pod
from arm_server import A10, A100

from steps.provision import aks
from steps.provision.settings import ClusterRef

ROLE = Path(__file__).parents[3] / "argo" / "azure-nodes-role.json"


def test_the_role_is_the_least_that_the_steps_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_pod(tmp_path, monkeypatch) as pod:
        pod.server.azure.failing[A100] = ("AllocationFailed", "no capacity")
        pod.provision(fallback_instance_types=[A10])
        pod.provision()
        pod.release()
        pod.provision(instance_type=A10)
        for found in aks.list_orphans(ClusterRef(**CLUSTER_REF), pod.connect()):
            aks.remove(ClusterRef(**CLUSTER_REF), found, pod.connect())
        assert json.loads(ROLE.read_text())["Actions"] == sorted(pod.server.azure.actions)
