from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import RETRY_AFTER
from kubernetes import config
from kubernetes_server import KubernetesServer

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes import connection
from steps.kubernetes.client import NODE_POOLS, PODS, RETRY, Kind, KubernetesClient, connect
from steps.kubernetes.errors import AlreadyExists, Conflict, KindNotInstalled
from steps.runtime.errors import BadInput, StepError

MAPS = Kind("v1", "configmaps")
BODY = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}


@pytest.fixture
def here(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> KubernetesClient:
    monkeypatch.setattr(kubernetes_client, "TIMEOUT", (5.0, 0.3))
    return connect(waits.append)


def test_objects_are_plain_maps(here: KubernetesClient, cluster: KubernetesServer) -> None:
    assert here.namespace == "argotune"
    assert here.get(MAPS, "m") is None
    assert here.create(MAPS, BODY)["metadata"]["uid"]
    with pytest.raises(AlreadyExists):
        here.create(MAPS, BODY)
    patched = here.patch(MAPS, "m", {"data": {"b": "2"}})
    assert patched and patched["data"] == {"a": "1", "b": "2"}
    assert here.patch(MAPS, "other", {"data": {}}) is None
    with pytest.raises(Conflict):
        here.delete(MAPS, "m", uid="another")
    assert here.delete(MAPS, "m", uid=patched["metadata"]["uid"]) is True
    assert here.delete(MAPS, "m") is False
    assert {call.user_agent for call in cluster.calls} == {"argotune"}


def test_apply_makes_changes_and_takes_over(here: KubernetesClient, cluster: KubernetesServer) -> None:
    here.apply(MAPS, BODY)
    assert here.apply(MAPS, {**BODY, "data": {"c": "3"}})["data"] == {"c": "3"}
    here.patch(MAPS, "m", {"data": {"c": "4"}})
    with pytest.raises(Conflict, match="conflict with"):
        here.apply(MAPS, {**BODY, "data": {"c": "3"}}, force=False)
    assert here.apply(MAPS, {**BODY, "data": {"c": "3"}})["data"] == {"c": "3"}


def test_lists_are_read_in_pages_and_begun_again_when_they_expire(
    here: KubernetesClient, cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_client, "PAGE", 2)
    for number in range(5):
        metadata = {"name": f"m{number}", "namespace": "argotune", "labels": {"odd": str(number % 2)}}
        cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})

    def forget(call: object) -> None:
        if len(cluster.calls) == 2:
            cluster.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}})
            cluster.compact()

    cluster.every_call.append(forget)
    assert [item["metadata"]["name"] for item in here.list(MAPS)] == ["m0", "m1", "m2", "m3", "m4"]
    assert len(cluster.calls) == 2 + 3
    assert [item["metadata"]["name"] for item in here.list(MAPS, labels="odd=1")] == ["m1", "m3"]


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
def test_a_failure_that_may_pass_is_tried_again(
    here: KubernetesClient, cluster: KubernetesServer, waits: list[float], kind: str
) -> None:
    cluster.put({**BODY, "metadata": {"name": "m", "namespace": "argotune"}})
    cluster.faults.fail(kind, 1)
    found = here.get(MAPS, "m")
    assert found and found["data"] == {"a": "1"}
    assert cluster.faults.happened and len(waits) == 1
    assert kind != "429" or waits == [RETRY_AFTER]


def test_in_the_end_it_gives_up_and_says_who_did_not_answer(
    here: KubernetesClient, cluster: KubernetesServer, waits: list[float]
) -> None:
    cluster.close()
    with pytest.raises(
        StepError, match=f"the Kubernetes API at {cluster.url}.*{RETRY.max_attempts} attempts"
    ) as raised:
        here.get(MAPS, "m")
    assert raised.value.exit_code == 1 and len(waits) == RETRY.max_attempts - 1


def test_refusals_are_told_in_words_and_not_tried_again(
    here: KubernetesClient, cluster: KubernetesServer, waits: list[float], tmp_path: Path
) -> None:
    cluster.forbidden.add(("create", "configmaps"))
    with pytest.raises(BadInput, match=r'cannot create configmaps m: .*User "tester" cannot') as forbidden:
        here.create(MAPS, BODY)
    assert "argo/install/roles.yaml" in forbidden.value.fix
    with pytest.raises(BadInput, match=r"metadata\.name"):
        here.apply(MAPS, {**BODY, "metadata": {"name": "No_Name"}})
    cluster.without("karpenter.sh")
    with pytest.raises(KindNotInstalled, match=r"the cluster has no nodepools\.karpenter\.sh"):
        here.get(NODE_POOLS, "run")
    with pytest.raises(KindNotInstalled):
        here.list(NODE_POOLS)
    cluster._tokens.clear()
    with pytest.raises(BadInput, match="does not accept our credentials"):
        here.get(MAPS, "m")
    assert waits == []


def test_logs_of_what_has_none_are_empty(here: KubernetesClient, cluster: KubernetesServer) -> None:
    assert here.log("gone", "main") == ""
    metadata = {"name": "p", "namespace": "argotune"}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "main"}]}})
    assert here.log("p", "main") == ""
    cluster.logs["argotune", "p", "main"] = "one\ntwo\n"
    assert here.log("p", "main", lines=1) == "two\n"
    assert here.get(PODS, "p")


def test_a_pod_uses_its_service_account(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs_tool: Callable[[str], str]
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.crt"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    make = [
        needs_tool("openssl"),
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run([*make, *subject], check=True, capture_output=True)
    cluster.use_tls(key, certificate)
    (tmp_path / "token").write_text(cluster.token("provision"))
    (tmp_path / "namespace").write_text("argotune")
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(config.incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(config.incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    inside = connect()
    assert (inside.namespace, inside.list(MAPS)) == ("argotune", [])
    assert cluster.calls[-1].user == "provision"
    cluster.kubeconfig(tmp_path / "kubeconfig")
    text = (tmp_path / "kubeconfig").read_text().replace(str(certificate), "/etc/ssl/certs/ca-certificates.crt")
    (tmp_path / "kubeconfig").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with pytest.raises(BadInput, match="no trusted connection"):
        connect().get(MAPS, "m")


def test_without_a_cluster_it_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="does not lead to a cluster") as raised:
        connect()
    assert "KUBECONFIG" in raised.value.fix
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(BadInput, match="service account of this pod"):
        connect()
