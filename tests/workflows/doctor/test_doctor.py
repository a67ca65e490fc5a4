"""``argotune doctor``: each check passes on a complete installation, and names what one change breaks, with a fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_server import KubernetesServer

from workflows.cli import main
from workflows.doctor.argo import KINDS
from workflows.plan.model import Images

NAMESPACE = "argotune"
GPU = "nvidia.com/gpu"
SECURITY = {"securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
ACCOUNTS = ("argotune", "argotune-rollout")
Object = dict[str, Any]


def new(kind: str, name: str, namespace: str = "", api: str = "v1", labels: Any = None, **fields: Any) -> Object:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels or {}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}


def definition(plural: str, version: str = "v1alpha1") -> Object:
    spec = {"versions": [{"name": version, "served": True}]}
    return new("CustomResourceDefinition", f"{plural}.argoproj.io", api="apiextensions.k8s.io/v1", spec=spec)


def node(name: str = "gpu-1", gpus: str = "4", ready: str = "True", **fields: Any) -> Object:
    images = [{"names": [image]} for image in Images().model_dump().values()]
    conditions = [{"type": "Ready", "status": ready}]
    status = {"allocatable": {GPU: gpus, "cpu": "8"} if gpus else {}, "conditions": conditions, "images": images}
    return new("Node", name, status=status, **fields)


def controller(image: str = "quay.io/argoproj/workflow-controller:v4.1.2", available: int = 1) -> Object:
    spec = {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}
    status = {"availableReplicas": available}
    return new("Deployment", "workflow-controller", "argo", "apps/v1", spec=spec, status=status)


def configuration(**data: str) -> Object:
    return new("ConfigMap", "workflow-controller-configmap", "argo", data=data)


def storage_class(default: str = "true") -> Object:
    document = new("StorageClass", "standard", api="storage.k8s.io/v1", provisioner="x")
    document["metadata"]["annotations"] = {"storageclass.kubernetes.io/is-default-class": default}
    return document


def claim(phase: str = "Bound") -> Object:
    spec = {"accessModes": ["ReadWriteOnce"]}
    return new("PersistentVolumeClaim", "argotune-models", NAMESPACE, spec=spec, status={"phase": phase})


def quota(used: str = "0") -> Object:
    status = {"used": {f"requests.{GPU}": used}}
    return new("ResourceQuota", "argotune", NAMESPACE, spec={"hard": {f"requests.{GPU}": "8"}}, status=status)


def dns(ready: bool = True) -> Object:
    endpoints = [{"addresses": ["10.0.0.10"], "conditions": {"ready": ready}}]
    labels = {"kubernetes.io/service-name": "kube-dns"}
    return new("EndpointSlice", "kube-dns-1", "kube-system", "discovery.k8s.io/v1", labels, endpoints=endpoints)


def namespace() -> Object:
    return new("Namespace", NAMESPACE, labels={"pod-security.kubernetes.io/enforce": "restricted"})


COMPLETE = [
    *map(definition, KINDS),
    controller(),
    configuration(executor=yaml.safe_dump(SECURITY)),
    namespace(),
    *(new("ServiceAccount", name, NAMESPACE) for name in ACCOUNTS),
    new("ConfigMap", "argotune-semaphores", NAMESPACE, data={"gpu": "2"}),
    storage_class(),
    claim(),
    quota(),
    node(),
    dns(),
]


def key(document: Object) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


Doctor = Callable[..., tuple[int, dict[str, dict[str, str]]]]


@pytest.fixture
def doctor(cluster: KubernetesServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """``doctor(DOCUMENT..., without=(KIND, NAME))``: exit code and findings by check, on a changed installation."""

    def run(*changes: Object, without: tuple[str, str] = ("", ""), **profile: Any) -> Any:
        for document in {key(item): item for item in [*COMPLETE, *changes]}.values():
            if key(document) == without:
                cluster.drop(document)
            else:
                cluster.put(document)
        site = tmp_path / "site.yaml"
        accounts = {"rollout": "argotune-rollout"}
        site.write_text(yaml.safe_dump({"namespace": NAMESPACE, "serviceAccounts": accounts, **profile}))
        code = main(["doctor", "--site", str(site), "-o", "json"])
        return code, {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}

    return run


def test_every_check_passes_on_a_complete_installation(doctor: Doctor) -> None:
    code, findings = doctor()
    assert {name: finding["message"] for name, finding in findings.items() if finding["state"] != "ok"} == {}
    assert code == 0
    assert findings["Argo controller"]["message"] == "release 4.1.2"
    assert findings["GPUs"]["message"] == "4 nvidia.com/gpu on 1 of 1 nodes"


@pytest.mark.parametrize(
    ("change", "check", "message"),
    [
        (definition("workflows", "v2"), "Argo kinds", "not served as argoproj.io/v1alpha1: workflows"),
        (controller("q.io/workflow-controller:v3.4.1"), "Argo controller", "release 3.4.1 is not supported"),
        (controller(available=0), "Argo controller", "has no available pod"),
        (configuration(), "Argo configuration", "rejects the containers of Argo's executor"),
        (configuration(executor="]"), "Argo configuration", "rejects the containers"),
        (new("ConfigMap", "argotune-semaphores", NAMESPACE, data={}), "semaphore", "has no key gpu"),
        (storage_class("false"), "storage class", "no default class"),
        (claim("Lost"), "models claim", "has lost its volume"),
        (quota("8"), "quota", "argotune: 8 of 8 requests.nvidia.com/gpu"),
        (node(gpus=""), "GPUs", "no ready node offers nvidia.com/gpu"),
        (node(ready="False"), "GPUs", "no ready node"),
        (node("gpu-2", "", labels={"nvidia.com/gpu.present": "true"}), "device plugin", "gpu-2"),
        (
            node("a100", "", labels={"node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4"}),
            "device plugin",
            "a100",
        ),
        (dns(ready=False), "DNS", "no ready address"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_changed_object_fails_its_check_with_a_fix(doctor: Doctor, change: Object, check: str, message: str) -> None:
    code, findings = doctor(change)
    assert code == 1
    assert findings[check]["state"] == "fail" and findings[check]["fix"]
    assert message in findings[check]["message"]


@pytest.mark.parametrize(
    ("missing", "check", "message"),
    [
        (("CustomResourceDefinition", "cronworkflows.argoproj.io"), "Argo kinds", "not installed: cronworkflows"),
        (("ConfigMap", "workflow-controller-configmap"), "Argo configuration", "rejects the containers"),
        (("ServiceAccount", "argotune-rollout"), "accounts", "argotune-rollout"),
        (("ConfigMap", "argotune-semaphores"), "semaphore", "not found"),
        (("PersistentVolumeClaim", "argotune-models"), "models claim", "not found"),
    ],
)
def test_a_missing_object_fails_its_check(doctor: Doctor, missing: tuple[str, str], check: str, message: str) -> None:
    code, findings = doctor(without=missing)
    assert code == 1
    assert findings[check]["state"] == "fail" and findings[check]["fix"]
    assert message in findings[check]["message"]


def test_karpenter_s_kinds_are_required_where_runs_create_nodes_with_it(doctor: Doctor) -> None:
    code, findings = doctor(node(gpus=""), nodes={"provider": "karpenter"})
    assert code == 1
    assert "nodepools.karpenter.sh is not installed" in findings["Karpenter"]["message"]
    assert findings["GPUs"]["message"] == "none now; runs create nodes with karpenter"


def test_what_the_user_is_not_permitted_to_read_is_not_checked(doctor: Doctor, cluster: KubernetesServer) -> None:
    cluster.forbidden |= {("list", "nodes"), ("get", "customresourcedefinitions"), ("list", "storageclasses")}
    images = dict.fromkeys(Images.model_fields, "127.0.0.1:1/argotune:1")
    code, findings = doctor(images=images)
    assert code == 0
    assert findings["image control"]["state"] == "not checked"
    assert {name for name, finding in findings.items() if finding["state"] == "not checked"} >= {
        "Argo kinds", "GPUs", "storage class",
    }  # fmt: skip


def test_rights_are_those_of_the_user_and_of_the_accounts(doctor: Doctor, cluster: KubernetesServer) -> None:
    cluster.forbidden |= {("create", "workflowtaskresults"), ("watch", "workflows")}
    code, findings = doctor()
    assert code == 1
    assert "cannot watch workflows" in findings["own rights"]["message"]
    assert "argotune, argotune-rollout" in findings["account rights"]["message"]


def test_only_reads(doctor: Doctor, cluster: KubernetesServer) -> None:
    doctor()
    assert {call.verb for call in cluster.calls} <= {"get", "list", "discover", "create"}
    created = {call.resource for call in cluster.calls if call.verb == "create"}
    assert created == {"subjectaccessreviews", "selfsubjectaccessreviews"}


def test_the_table_has_the_fix_below_each_failure(
    cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--namespace", "nowhere"]) == 1
    lines = capsys.readouterr().out.splitlines()
    [at] = [idx for idx, line in enumerate(lines) if line.startswith("fail         namespace ")]
    assert "nowhere not found" in lines[at] and lines[at + 1].strip().startswith("fix: kubectl apply -k argo/install")
    assert lines[-1].endswith("not checked")


def test_a_cluster_that_does_not_respond_is_an_error(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["users"][0]["user"]["token"] = "expired"
    (tmp_path / "other").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "other"))
    assert main(["doctor"]) != 0
    assert "log in to the cluster again" in capsys.readouterr().err
