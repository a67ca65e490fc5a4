"""``argotune submit`` reports what a run will lack or wait for, before it creates anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_server import KubernetesServer

from steps.rollout import service_group
from workflows.cli import main
from workflows.cluster.gpu_holders import GpuRequest, find_request, find_shortage

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")
RETRAINING = str(ROOT / "examples" / "smollm2_135m_retraining.yaml")
GPU = "nvidia.com/gpu"
SELECTED = {"app": "oncall", "node.kubernetes.io/instance-type": "Standard_NV36ads_A10_v5"}
SERVED = {"argotune.dev/service": "oncall"}
REQUEST = GpuRequest("tune", GPU, 1, {}, ())


def node(name: str, gpus: int, **labels: str) -> dict[str, Any]:
    status = {"allocatable": {GPU: str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def pod(
    name: str, node: str, gpus: int, labels: dict[str, str] | None = None, namespace: str = "argotune"
) -> dict[str, Any]:
    container = {"name": "main", "image": "x", "resources": {"limits": {GPU: str(gpus)}}}
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    spec = {"nodeName": node, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def remove_claim(cluster: KubernetesServer, name: str) -> None:
    cluster.delete(cluster.get(cluster.resource("persistentvolumeclaims"), "argotune", name), {})


def test_missing_claims_are_all_reported_and_nothing_is_created(cluster: KubernetesServer, capsys):
    remove_claim(cluster, "adapters")
    lost = {"name": "argotune-models", "namespace": "argotune"}
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    cluster.put({**kind, "metadata": lost, "spec": {}, "status": {"phase": "Lost"}})
    assert main(["submit", EXAMPLE]) == 2
    shown = capsys.readouterr().err
    assert f"error: {EXAMPLE}: volume claim argotune-models has lost its volume\n    fix: create it" in shown
    assert f"error: {EXAMPLE}: volume claim adapters not found in namespace argotune" in shown
    assert "kubectl get pvc --namespace argotune" in shown
    assert not cluster.all("workflows")


def test_a_schedule_can_be_created_before_its_claims(cluster: KubernetesServer, capsys):
    remove_claim(cluster, "oncall-adapter")
    remove_claim(cluster, "oncall-data")
    assert main(["submit", RETRAINING, "--as", "cron"]) == 0
    shown = capsys.readouterr().err
    assert "warning: volume claim oncall-data not found in namespace argotune" in shown


def test_claims_that_cannot_be_read_are_not_checked(cluster: KubernetesServer):
    cluster.forbidden = {("get", "persistentvolumeclaims"), ("list", "nodes")}
    remove_claim(cluster, "adapters")
    assert main(["submit", EXAMPLE]) == 0


def test_the_deployment_that_holds_the_gpu_is_named(cluster: KubernetesServer, capsys):
    cluster.put(node("gpu", 1, **SELECTED))
    cluster.put(pod("oncall-7f-x", "gpu", 1, SERVED))
    assert main(["submit", EXAMPLE]) == 0
    shown = capsys.readouterr().err
    assert (
        "warning: tune waits for 1 of 1 nvidia.com/gpu, which are in use by Deployment oncall, which this run replaces"
        " only at its end\n    fix: free it (nothing is served until the rollout): kubectl scale deployment/oncall "
        "--replicas=0 --namespace argotune; or add a GPU node" in shown
    )


@pytest.mark.parametrize(
    ("labels", "message", "command"),
    [
        ([{}], "Deployment oncall", "deployment/oncall"),
        ([{"argotune.dev/track": "canary"}], "Deployment oncall-canary", "deployment/oncall-canary"),
        ([{service_group.POD_INDEX: "1"}], "StatefulSet oncall-nodes", "statefulset/oncall-nodes"),
        ([{service_group.POD_INDEX: "0", service_group.WORKER_INDEX: "0"}], "LeaderWorkerSet oncall-group",
         "leaderworkerset/oncall-group"),
        ([{}, {"argotune.dev/track": "canary"}, {}], "Deployment oncall and Deployment oncall-canary",
         "deployment/oncall deployment/oncall-canary"),
    ],
)  # fmt: skip
def test_the_command_that_frees_the_gpus_fits_the_servers(labels: list[dict[str, str]], message: str, command: str):
    pods = [pod(f"x{number}", "a", 1, SERVED | own) for number, own in enumerate(labels)]
    problem = find_shortage(REQUEST, [node("a", len(pods))], pods, "argotune", "oncall")
    assert problem and f"in use by {message}, which this run replaces" in problem.message
    assert f"kubectl scale {command} --replicas=0 --namespace argotune;" in problem.fix


def test_a_free_gpu_is_no_warning(cluster: KubernetesServer, capsys):
    cluster.put(node("gpu", 2, **SELECTED))
    cluster.put(pod("oncall-7f-x", "gpu", 1, SERVED))
    assert main(["submit", EXAMPLE]) == 0
    assert "warning: tune waits" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("request_", "nodes", "pods", "message"),
    [
        (REQUEST, [], [], ""),
        (REQUEST, [node("a", 1)], [pod("x", "a", 1, namespace="b")], "in use by b/x"),
        (REQUEST, [node("a", 1)], [pod("x", "a", 1, SERVED, "b")], "in use by b/x"),
        (REQUEST, [node("a", 1)], [pod("x", "a", 1) | {"status": {"phase": "Succeeded"}}], ""),
        (REQUEST, [node("a", 1), node("b", 1)], [pod("x", "a", 1)], ""),
        (GpuRequest("tune", GPU, 2, {}, ()), [node("a", 1), node("b", 2)], [pod("x", "b", 1)], "2 of 2"),
        (GpuRequest("tune", GPU, 1, {"kind": "t4"}, ()), [node("a", 1), node("b", 1, kind="t4")],
         [pod("x", "b", 1)], "1 of 1 nvidia.com/gpu"),
        (GpuRequest("tune", GPU, 1, {}, [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["1"]}]}]),
         [node("a", 1), node("b", 1, k="1")], [pod("x", "b", 1)], "1 of 1 nvidia.com/gpu"),
        (REQUEST, [node("a", 5)], [pod(f"x{n}", "a", 1) for n in range(5)], "argotune/x2 and 2 more"),
    ],
)  # fmt: skip
def test_holders_of_gpus(request_: GpuRequest, nodes: list, pods: list, message: str):
    problem = find_shortage(request_, nodes, pods, "argotune", "oncall")
    assert (problem is not None) == bool(message)
    assert problem is None or message in problem.message


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=6), st.integers(1, 8))
def test_a_warning_means_that_no_node_has_the_gpus_free(nodes: list[tuple[int, int]], count: int):
    documents = [node(str(number), gpus) for number, (gpus, _) in enumerate(nodes)]
    pods = [pod(str(number), str(number), min(used, gpus)) for number, (gpus, used) in enumerate(nodes)]
    problem = find_shortage(GpuRequest("tune", GPU, count, {}, ()), documents, pods, "argotune", "oncall")
    suitable = [(gpus, min(used, gpus)) for gpus, used in nodes if gpus >= count]
    assert (problem is not None) == (bool(suitable) and all(gpus - used < count for gpus, used in suitable))


def test_a_run_that_creates_its_nodes_waits_for_none():
    container = {"resources": {"limits": {GPU: 1}}}
    template = {"name": "tune", "container": container}
    assert find_request({"templates": [{"name": "a"}, template]}) == REQUEST
    created = {**template, "nodeSelector": {"argotune.dev/run": "{{workflow.uid}}"}}
    assert find_request({"templates": [created]}) is None
