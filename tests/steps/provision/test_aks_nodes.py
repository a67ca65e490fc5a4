"""A pool is ready when its nodes have allocatable GPUs; else the step fails before pods are pending."""

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


def test_nodes_are_named_when_they_offer_their_gpus(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-b", 1))
    cluster.put(node("aks-a", 1))
    cluster.put(node("aks-other", 1, run="another"))
    assert pod.provision(count=2).nodes == ["aks-a", "aks-b"]


def test_a_device_plugin_that_comes_later_is_waited_for(
    pod: Pod, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    later = [node("aks-a", 0, ready=False), node("aks-a", 0), node("aks-a", 2)]
    cluster.every_call.append(lambda call: cluster.put(later.pop(0)) if later else None)
    assert pod.provision().nodes == ["aks-a"]
    assert "waiting: 0 of 1 nodes offer 1 nvidia.com/gpu" in capsys.readouterr().out


def test_nodes_that_offer_no_gpus_are_told_and_the_pool_is_released(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-a", 0))
    with pytest.raises(BadInput, match="after 8 minutes 0 of 1 nodes offer 1 nvidia") as caught:
        pod.provision()
    assert "device plugin" in caught.value.fix
    pod.release()
    assert not pod.server.azure.pools


def test_who_may_not_look_at_nodes_goes_on(
    pod: Pod, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden.add(("list", "nodes"))
    assert pod.provision().nodes == [aks_pool.name(RUN)]
    assert "the nodes' GPUs are not looked at: cannot list nodes" in capsys.readouterr().out


def test_a_pool_that_the_autoscaler_has_emptied_is_ready(pod: Pod, cluster: KubernetesServer) -> None:
    cluster.put(node("aks-a", 1))
    pod.provision()
    pod.server.azure.pools[aks_pool.name(RUN)].properties["count"] = 0
    cluster.records.pop(cluster.key(cluster.resource("nodes"), "", "aks-a"))
    assert pod.provision().summary.endswith(f"1 x {A100} (on demand), for this run alone")
