"""A pool is ready when its nodes have allocatable GPUs; otherwise the step fails before pods are pending."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from arm_fixture import RUN, Pod, serve_pod
from arm_server import A100
from kubernetes_server import KubernetesServer, condition

from steps.provision import aks_pool
from steps.runtime.errors import BadInput


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


def node(name: str, gpus: int, *, run: str = RUN, ready: bool = True) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"argotune.dev/run": run}}
    offers = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    conditions = [condition("Ready", "True" if ready else "False")]
    status = {"allocatable": {"cpu": "24", **offers}, "conditions": conditions}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status}


def test_nodes_with_allocatable_gpus_are_returned(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-b", 1))
    cluster.put(node("aks-a", 1))
    cluster.put(node("aks-other", 1, run="another"))
    assert pod.provision(count=2).nodes == ["aks-a", "aks-b"]


def test_step_waits_for_the_device_plugin(
    pod: Pod, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    later = [node("aks-a", 0, ready=False), node("aks-a", 0), node("aks-a", 2)]
    cluster.every_call.append(lambda call: cluster.put(later.pop(0)) if later else None)
    assert pod.provision().nodes == ["aks-a"]
    assert "waiting: 0 of 1 nodes have 1 allocatable nvidia.com/gpu" in capsys.readouterr().out


def test_nodes_without_gpus_fail_the_step_and_are_released(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-a", 0))
    with pytest.raises(BadInput, match=r"0 of 1 nodes have 1 allocatable nvidia\.com/gpu after 8 minutes") as caught:
        pod.provision()
    assert "device plugin" in caught.value.fix
    pod.release()
    assert not pod.server.azure.pools


def test_step_continues_without_permission_to_read_nodes(
    pod: Pod, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden.add(("list", "nodes"))
    assert pod.provision().nodes == [aks_pool.name(RUN)]
    assert "GPUs of the nodes not checked: cannot list nodes" in capsys.readouterr().out


def test_pool_emptied_by_the_autoscaler_is_ready(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-a", 1))
    pod.provision()
    pod.server.azure.pools[aks_pool.name(RUN)].properties["count"] = 0
    cluster.records.pop(cluster.key(cluster.resource("nodes"), "", "aks-a"))
    assert pod.provision().summary.endswith(f"1 x {A100} (on demand), only for this run")
