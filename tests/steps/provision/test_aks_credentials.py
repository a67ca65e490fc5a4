"""Azure credentials: a pod's workload identity, the machine's managed identity, or az login on a laptop."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from arm_fixture import CLUSTER_REF, RUN, Pod, serve_pod
from arm_server import CLIENT_ID, CLUSTER, TOKEN

from steps.provision import aks
from steps.provision.settings import ClusterRef
from steps.runtime.errors import BadInput

WORKLOAD = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_TENANT_ID", "AZURE_AUTHORITY_HOST", "AZURE_CLIENT_ID")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with serve_pod(tmp_path, monkeypatch) as pod:
        yield pod


@pytest.fixture
def no_workload_identity(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WORKLOAD:
        monkeypatch.delenv(name)
    # Outside Azure, no metadata service responds.
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:9")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A fake metadata service of an Azure machine; yields the requested paths."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            granted = {"access_token": TOKEN, "expires_in": "3600", "expires_on": "4102444800", "token_type": "Bearer"}
            body = json.dumps({**granted, "resource": "x"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{server.server_port}")
    yield requests
    server.shutdown()
    server.server_close()


def az(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """A program ``az`` on the path."""
    program = folder / "bin" / "az"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_pod_shows_the_token_of_its_service_account(pod: Pod) -> None:
    assert aks.list_orphans(ClusterRef(**CLUSTER_REF), pod.connect()) == []
    assert pod.server.faults.calls == ["POST token", "GET agent pools"]


def test_rejected_token_is_reported_and_not_retried(pod: Pod) -> None:
    (pod.work / "token").write_text("of another account")
    with pytest.raises(BadInput, match="AADSTS700213") as caught:
        pod.provision()
    assert "azureWorkloadIdentity" in caught.value.fix
    assert "of another account" not in str(caught.value)


def test_incomplete_workload_identity_is_reported(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_TENANT_ID")
    with pytest.raises(BadInput, match="tenant_id"):
        pod.provision()


@pytest.mark.usefixtures("no_workload_identity")
def test_the_machine_has_an_identity(pod: Pod, metadata: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pod.work))
    monkeypatch.setenv("AZURE_CLIENT_ID", CLIENT_ID)
    pod.provision()
    assert any(f"client_id={CLIENT_ID}" in path for path in metadata)


@pytest.mark.usefixtures("no_workload_identity")
def test_a_laptop_is_logged_in(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = {"accessToken": TOKEN, "expiresOn": "2099-01-01 00:00:00.000000", "expires_on": 4070908800}
    az(tmp_path, monkeypatch, f"echo '{json.dumps(token)}'")
    assert aks.list_orphans(ClusterRef(**CLUSTER_REF), pod.connect()) == []


@pytest.mark.usefixtures("no_workload_identity")
def test_missing_login_is_reported_with_the_command(pod: Pod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    az(tmp_path, monkeypatch, "echo 'ERROR: Please run az login to setup account.' >&2", "exit 1")
    with pytest.raises(BadInput) as caught:
        pod.provision()
    assert "az login" in str(caught.value)


@pytest.mark.usefixtures("no_workload_identity")
def test_machine_without_identity_fails_without_retries(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(pod.work))
    with pytest.raises(BadInput, match="ManagedIdentityCredential") as caught:
        pod.provision()
    assert "az login" in caught.value.fix
    assert sum(pod.waits) < 60


def test_missing_permission_is_reported(pod: Pod) -> None:
    pod.server.azure.forbidden = f"managedClusters/{CLUSTER}"
    with pytest.raises(BadInput, match="AuthorizationFailed") as caught:
        pod.provision()
    assert "docs/NODES.md" in caught.value.fix


def test_no_token_is_shown(pod: Pod, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    result = pod.provision()
    pod.release()
    shown = "".join(capfd.readouterr()) + caplog.text + repr(result)
    assert RUN not in TOKEN and TOKEN not in shown and "service-account-token" not in shown
