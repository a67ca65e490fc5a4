from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_table
import pytest
from faults import Faults, kill_proof, read_timeout
from kubernetes_server import KubernetesServer, condition

from steps.kubernetes import client as kubernetes_client
from steps.provision import existing_nodes
from steps.provision.settings import Result, Settings
from steps.provision.step import provision
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

A100 = "Standard_NC24ads_A100_v4"
Provision = Callable[..., Result]


def node(name: str, *, gpus: int = 1, memory: int = 81920, ready: bool = True, **spec: Any) -> dict[str, Any]:
    labels = {
        "apps": "tuning",
        "node.kubernetes.io/instance-type": A100,
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": "1",
        "nvidia.com/gpu.memory": str(memory),
        "nvidia.com/gpu.product": "NVIDIA-A100-80GB-PCIe",
    }
    conditions = [condition("Ready", "True" if ready else "False", message="" if ready else "kubelet is silent")]
    status = {"allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {}, "conditions": conditions}
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def settings_for(folder: Path, **more: Any) -> Settings:
    return Settings(**{"work": folder, "provider": "existing", "labels": {"apps": "tuning"}, **more})


@pytest.fixture
def find_nodes(cluster: KubernetesServer, tmp_path: Path) -> Provision:
    return lambda **more: existing_nodes.provision(settings_for(tmp_path, **more))


def test_suitable_nodes_are_listed_with_their_gpus(find_nodes: Provision, cluster: KubernetesServer) -> None:
    cluster.put(node("a"))
    cluster.put(node("b", taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}]))
    cluster.put({**node("c"), "metadata": {"name": "c", "labels": {"apps": "other"}}})
    found = find_nodes(count=2)
    assert (found.device, found.nodes) == ("cuda", ["a", "b"])
    assert found.summary.startswith("2 of 2 nodes are suitable: a (1 x NVIDIA-A100-80GB-PCIe, 80 GiB each), b (")


def test_nodes_are_selected_by_instance_type_and_fallbacks(find_nodes: Provision, cluster: KubernetesServer) -> None:
    cluster.put(node("a"))
    other = node("b", memory=97871)
    other["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "Standard_NC40ads_H100_v5"
    cluster.put(other)
    assert find_nodes(instance_type=A100).nodes == ["a"]
    assert find_nodes(instance_type=A100, fallback_instance_types=["Standard_NC40ads_H100_v5"]).nodes == [
        "a",
        "b",
    ]
    assert cluster.calls[-1].query["labelSelector"].startswith("apps=tuning,node.kubernetes.io/instance-type in (")


@pytest.mark.parametrize(
    ("broken_node", "message"),
    [
        (
            node("a", gpus=0),
            "has 0 allocatable nvidia.com/gpu, 1 required; it has 1, but NVIDIA's device plugin does",
        ),
        (node("a", memory=40960), "has 40 GiB per GPU, 80 GiB required"),
    ],
)
def test_missing_requirement_is_missing_capacity(
    find_nodes: Provision, cluster: KubernetesServer, broken_node: dict[str, Any], message: str
) -> None:
    cluster.put(broken_node)
    with pytest.raises(InsufficientCapacity) as caught:
        find_nodes(instance_type=A100)
    assert f"a: {message}" in caught.value.message and caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("broken_node", "message"),
    [
        (node("a", ready=False), "is not ready: kubelet is silent"),
        (node("a", unschedulable=True), "is cordoned (kubectl uncordon a)"),
        (node("a", taints=[{"key": "team", "value": "b", "effect": "NoSchedule"}]), "has the taint team=b:NoSchedule"),
        (node("a", taints=[{"key": "sku", "value": "gpu", "effect": "NoExecute"}]), "taint sku=gpu:NoExecute"),
    ],
)
def test_blocked_node_is_a_temporary_failure(
    find_nodes: Provision, cluster: KubernetesServer, broken_node: dict[str, Any], message: str
) -> None:
    cluster.put(broken_node)
    with pytest.raises(StepError) as caught:
        find_nodes()
    assert message in caught.value.message and caught.value.exit_code == 1
    cluster.put(node("b"))
    assert find_nodes().nodes == ["b"]
    with pytest.raises(StepError, match="1 of 2 nodes with apps=tuning are suitable, 2 required"):
        find_nodes(count=2)


def test_tolerated_and_preferred_taints_are_ignored(find_nodes: Provision, cluster: KubernetesServer) -> None:
    taints = [
        {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"},
        {"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"},
        {"key": "team", "value": "b", "effect": "PreferNoSchedule"},
    ]
    cluster.put(node("a", taints=taints))
    assert find_nodes().nodes == ["a"]


def test_mig_partitions_are_counted_by_resource_name(find_nodes: Provision, cluster: KubernetesServer) -> None:
    one = node("a", gpus=0, memory=81920)
    one["status"]["allocatable"] = {"nvidia.com/mig-1g.10gb": "7"}
    cluster.put(one)
    assert find_nodes(gpu_resource="nvidia.com/mig-1g.10gb").nodes == ["a"]
    with pytest.raises(InsufficientCapacity, match=r"has 0 allocatable nvidia\.com/mig-3g\.40gb"):
        find_nodes(gpu_resource="nvidia.com/mig-3g.40gb")


def test_missing_nodes_are_reported_with_the_selector(find_nodes: Provision, cluster: KubernetesServer) -> None:
    with pytest.raises(BadInput, match="no node has apps=tuning") as caught:
        find_nodes()
    assert "labelSelector" in caught.value.fix
    cluster.put(node("a"))
    assert find_nodes(labels={}).nodes == ["a"]
    assert cluster.calls[-1].query["labelSelector"] == "nvidia.com/gpu.present=true"


def test_different_gpus_are_reported(
    find_nodes: Provision, cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.put(node("a"))
    cluster.put(node("b", gpus=4))
    find_nodes()
    assert "note: the nodes have different GPUs" in capsys.readouterr().out


def test_missing_permission_is_reported_with_the_role(find_nodes: Provision, cluster: KubernetesServer) -> None:
    cluster.forbidden.add(("list", "nodes"))
    with pytest.raises(BadInput, match="nodes is forbidden") as caught:
        find_nodes()
    assert "argo/install/roles.yaml" in caught.value.fix


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the step as its pod does, including the selection of the provider."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    waits: list[float] = []
    connect = kubernetes_client.connect
    monkeypatch.setattr(kubernetes_client, "connect", lambda: connect(waits.append))

    def run(kind: str, call: int) -> tuple[Faults, str]:
        monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, read_timeout(kind)))
        with KubernetesServer() as cluster:
            monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "kubeconfig")))
            cluster.put(node("a"))
            before = cluster.version
            if kind:
                cluster.faults.fail(kind, call)
            if kind == "killed":
                assert not kill_proof(cluster.faults, lambda: provision(settings_for(tmp_path)))
            assert provision(settings_for(tmp_path)).nodes == ["a"]
            assert cluster.version == before, "the cluster was changed"
            return cluster.faults, "succeeds after a restart" if kind == "killed" else "succeeds on retry"

    fault_table.check("provision: existing nodes", fault_table.sweep("provision", run))
