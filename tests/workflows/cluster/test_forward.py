"""Reaching a served model from outside the cluster: the pod that is chosen, and the bytes of each connection."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from adapter_server import RunningServer
from kubernetes_server import KubernetesServer, condition

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes import port_forward
from steps.kubernetes.connection import Connection
from steps.runtime.errors import BadInput
from steps.serving import api_keys
from workflows.cli import main
from workflows.cluster import forward

ROOT = Path(__file__).parents[3]
LABELS = {"argotune.dev/service": "oncall", "track": "stable"}
Put = Callable[..., None]


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a model server."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    yield http.server_port
    http.shutdown()
    http.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send('{"data": [{"id": "base"}, {"id": "oncall"}]}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        name = "adapter" if b'"oncall"' in body else "base"
        self._send(json.dumps({"choices": [{"message": {"content": f"I am the {name}"}}]}))

    def _send(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def pod(name: str, ready: str = "True", labels: dict[str, str] = LABELS, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "argotune", "labels": labels, **metadata},
        "spec": {"containers": [{"name": "server", "ports": [{"name": "http", "containerPort": 5000}]}]},
        "status": {"conditions": [condition("Ready", ready)]},
    }


@pytest.fixture
def service(cluster: KubernetesServer) -> KubernetesServer:
    spec = {"selector": LABELS, "ports": [{"port": 80, "targetPort": "http"}]}
    metadata = {"name": "oncall", "namespace": "argotune"}
    cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    return cluster


def test_a_ready_pod_of_the_service_is_chosen(service: KubernetesServer) -> None:
    service.put(pod("starting", "False"))
    service.put(pod("canary", labels={"argotune.dev/service": "oncall", "track": "canary"}))
    service.put(pod("live"))
    assert forward.find_pod(kubernetes_client.connect(), "oncall") == ("live", 5000)


@pytest.mark.parametrize(
    ("name", "message"), [("other", "service other not found in namespace"), ("oncall", "has no ready pod")]
)
def test_a_service_without_pods_is_an_error_with_a_fix(service: KubernetesServer, name: str, message: str) -> None:
    service.put(pod("starting", "False"))
    with pytest.raises(BadInput, match=message) as caught:
        forward.find_pod(kubernetes_client.connect(), name)
    assert caught.value.fix


def test_concurrent_connections_are_forwarded(server: int) -> None:
    with port_forward.listen(lambda: socket.create_connection(("127.0.0.1", server))) as address:
        texts: list[str] = []
        threads = [threading.Thread(target=lambda: texts.append(requests.get(address).text)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(texts) == 8 and all("oncall" in text for text in texts)


def test_a_pod_that_is_gone_closes_the_connection(server: int) -> None:
    def refuse() -> socket.socket:
        raise BadInput("gone")

    with port_forward.listen(refuse) as address, pytest.raises(requests.ConnectionError):
        requests.get(address)


def test_a_port_in_use_is_an_error(server: int) -> None:
    with pytest.raises(BadInput, match="cannot be used"), port_forward.listen(socket.socket, server):
        pass


@pytest.fixture
def reachable(service: KubernetesServer, server: int, monkeypatch: pytest.MonkeyPatch) -> KubernetesServer:
    """A cluster whose pod is the model server; the fake API server has no websockets."""
    opened = lambda *_: socket.create_connection(("127.0.0.1", server))  # noqa: E731
    monkeypatch.setattr(Connection, "open_port", opened)
    service.put(pod("live"))
    return service


@pytest.mark.parametrize(("flags", "model"), [([], "adapter"), (["--model", "base"], "base")])
def test_chat_asks_the_adapter_of_a_cluster(
    reachable: KubernetesServer, capsys: pytest.CaptureFixture[str], flags: list[str], model: str
) -> None:
    assert main(["chat", "--cluster", "oncall", "-n", "argotune", "Who?", *flags]) == 0
    assert capsys.readouterr().out == f"I am the {model}\n"


@pytest.fixture
def keys(service: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the keys of a served model; a pod is the real middleware."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("alice", "bob"):
        (folder / name).write_text(f"{name}-0123456789abcd")
    with monkeypatch.context() as patch:
        patch.setenv(api_keys.FOLDER_VARIABLE, str(folder))
        running = RunningServer(tmp_path / "adapters.json", tmp_path / "pulled")
    for name in (api_keys.FOLDER_VARIABLE, api_keys.CLIENT_VARIABLE, "VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    target = urlsplit(running.address)
    monkeypatch.setattr(Connection, "open_port", lambda *_: socket.create_connection((target.hostname, target.port)))
    service.put(pod("live"))
    yield folder
    running.close()


def test_chat_sends_a_key_to_a_cluster(
    keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--cluster", "oncall", "--api-key-file", str(keys / "bob"), "Who?"]) == 0
    monkeypatch.setenv(api_keys.CLIENT_VARIABLE, (keys / "alice").read_text())
    assert main(["chat", "--cluster", "oncall", "Who?"]) == 0
    out = capsys.readouterr().out  # the server's log too
    assert out.endswith("I am base.\n" * 2) and "0123456789abcd" not in out


@pytest.mark.parametrize("key", [None, "other-0123456789abcd"])
def test_chat_without_a_key_of_the_cluster_has_a_fix(
    keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str | None
) -> None:
    (tmp_path / "key").write_text(key or "")
    flags = ["--api-key-file", str(tmp_path / "key")] if key else []
    assert main(["chat", "--cluster", "oncall", "Who?", *flags]) == 1
    message = capsys.readouterr().err
    assert "HTTP 401: the API key is missing or not valid" in message and "fix: set ARGOTUNE_API_KEY" in message
    assert "Traceback" not in message and (not key or key not in message)


def test_chat_rejects_a_model_and_a_service_that_do_not_exist(
    reachable: KubernetesServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chat", "--cluster", "oncall", "Who?", "--model", "x"]) == 2
    assert "use one of base, oncall" in capsys.readouterr().err
    assert main(["chat", "--cluster", "other", "Who?"]) == 2
    assert "service other not found" in capsys.readouterr().err
    assert main(["chat", "--cluster", "oncall", "--run", "x", "Who?"]) == 2


def test_the_role_of_clients_has_exactly_the_permissions(reachable: KubernetesServer) -> None:
    assert main(["chat", "--cluster", "oncall", "Who?"]) == 0
    roles = yaml.safe_load_all((ROOT / "argo" / "install" / "roles.yaml").read_text())
    [role] = [item for item in roles if item["kind"] == "Role" and item["metadata"]["name"] == "argotune-client"]
    rules = [(rule["resources"], rule["verbs"]) for rule in role["rules"]]
    rights = {(verb, "", resource) for resources, verbs in rules for resource in resources for verb in verbs}
    # The websocket, which the fake has not: its verb is get or create, by the release of Kubernetes.
    assert rights - reachable.verbs() == {("get", "", "pods/portforward"), ("create", "", "pods/portforward")}
    assert reachable.verbs() <= rights
