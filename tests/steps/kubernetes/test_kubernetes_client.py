from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from certificates import write_certificate
from faults import RETRY_AFTER, read_timeout
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
def client(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> KubernetesClient:
    return connect(waits.append)


def test_objects_are_plain_dicts(client: KubernetesClient, cluster: KubernetesServer) -> None:
    assert client.namespace == "argotune"
    assert client.get(MAPS, "m") is None
    assert client.create(MAPS, BODY)["metadata"]["uid"]
    with pytest.raises(AlreadyExists):
        client.create(MAPS, BODY)
    patched = client.patch(MAPS, "m", {"data": {"b": "2"}})
    assert patched and patched["data"] == {"a": "1", "b": "2"}
    assert client.patch(MAPS, "other", {"data": {}}) is None
    with pytest.raises(Conflict):
        client.delete(MAPS, "m", uid="another")
    assert client.delete(MAPS, "m", uid=patched["metadata"]["uid"]) is True
    assert client.delete(MAPS, "m") is False
    assert {call.user_agent for call in cluster.calls} == {"argotune"}


def test_apply_creates_changes_and_takes_ownership(client: KubernetesClient, cluster: KubernetesServer) -> None:
    client.apply(MAPS, BODY)
    assert client.apply(MAPS, {**BODY, "data": {"c": "3"}})["data"] == {"c": "3"}
    client.patch(MAPS, "m", {"data": {"c": "4"}})
    with pytest.raises(Conflict, match="conflict with"):
        client.apply(MAPS, {**BODY, "data": {"c": "3"}}, force=False)
    assert client.apply(MAPS, {**BODY, "data": {"c": "3"}})["data"] == {"c": "3"}


def test_lists_are_read_in_pages_and_restarted_when_they_expire(
    client: KubernetesClient, cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch
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
    assert [item["metadata"]["name"] for item in client.list(MAPS)] == ["m0", "m1", "m2", "m3", "m4"]
    assert len(cluster.calls) == 2 + 3
    assert [item["metadata"]["name"] for item in client.list(MAPS, labels="odd=1")] == ["m1", "m3"]


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
def test_temporary_failure_is_retried(
    client: KubernetesClient,
    cluster: KubernetesServer,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(kubernetes_client, "TIMEOUT", (30, read_timeout(kind)))
    cluster.put({**BODY, "metadata": {"name": "m", "namespace": "argotune"}})
    cluster.faults.fail(kind, 1)
    found = client.get(MAPS, "m")
    assert found and found["data"] == {"a": "1"}
    assert cluster.faults.happened and len(waits) == 1
    assert kind != "429" or waits == [RETRY_AFTER]


def test_last_failure_names_the_server(
    client: KubernetesClient, cluster: KubernetesServer, waits: list[float]
) -> None:
    cluster.close()
    with pytest.raises(
        StepError, match=f"the Kubernetes API at {cluster.url}.*{RETRY.max_attempts} attempts"
    ) as raised:
        client.get(MAPS, "m")
    assert raised.value.exit_code == 1 and len(waits) == RETRY.max_attempts - 1


def test_rejection_is_reported_and_not_retried(
    client: KubernetesClient, cluster: KubernetesServer, waits: list[float], tmp_path: Path
) -> None:
    cluster.forbidden.add(("create", "configmaps"))
    with pytest.raises(BadInput, match=r'cannot create configmaps m: .*User "tester" cannot') as forbidden:
        client.create(MAPS, BODY)
    assert "argo/install/roles.yaml" in forbidden.value.fix
    with pytest.raises(BadInput, match=r"metadata\.name"):
        client.apply(MAPS, {**BODY, "metadata": {"name": "No_Name"}})
    cluster.without("karpenter.sh")
    with pytest.raises(KindNotInstalled, match=r"the cluster has no nodepools\.karpenter\.sh"):
        client.get(NODE_POOLS, "run")
    with pytest.raises(KindNotInstalled):
        client.list(NODE_POOLS)
    cluster._tokens.clear()
    with pytest.raises(BadInput, match="rejects the credentials"):
        client.get(MAPS, "m")
    assert waits == []


def test_log_is_empty_if_there_is_none(client: KubernetesClient, cluster: KubernetesServer) -> None:
    assert client.log("gone", "main") == ""
    metadata = {"name": "p", "namespace": "argotune"}
    cluster.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [{"name": "main"}]}})
    assert client.log("p", "main") == ""
    cluster.logs["argotune", "p", "main"] = "one\ntwo\n"
    assert client.log("p", "main", lines=1) == "two\n"
    assert client.get(PODS, "p")


def test_pod_uses_its_service_account(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = write_certificate(tmp_path)
    certificate = certificate.rename(tmp_path / "ca.crt")
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


@pytest.mark.parametrize("token", ["\ufffd\ufffd", "a\nb", "\u20ac"])
def test_credentials_that_no_header_can_have_are_refused(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    file = cluster.kubeconfig(tmp_path / "kubeconfig", user="provision")
    content = yaml.safe_load(file.read_text())
    content["users"][0]["user"] = {"token": token}
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(file))
    with pytest.raises(BadInput, match="characters that no HTTP header can have"):
        connect()


def test_missing_cluster_is_reported_with_a_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="cannot use ") as raised:
        connect()
    assert "KUBECONFIG" in raised.value.fix
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(BadInput, match="service account of this pod"):
        connect()


@pytest.mark.parametrize(
    ("text", "reason", "fix"),
    [
        ("Handshake status 404 Not Found -+-+- {'audit-id': '1'} -+-+- {}", "the pod does not exist any more", "try"),
        ("Handshake status 403 Forbidden -+-+- {'audit-id': '1'}", "403 Forbidden", "Role argotune-client"),
        ("Handshake status 500 Internal Server Error -+-+- {}", "500 Internal Server Error", "pod is running"),
        ("[Errno 111] Connection refused", "[Errno 111] Connection refused", "reachable"),
    ],
)
def test_a_refused_port_has_a_reason_without_headers(text: str, reason: str, fix: str) -> None:
    explained = connection._explain_handshake(text)
    assert explained[0] == reason and fix in explained[1]
