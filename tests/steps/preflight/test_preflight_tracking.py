"""Before a run: whether the Secret has what the tracking tool needs, and whether the server takes it."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MlflowServer

from steps.preflight.settings import Settings
from steps.preflight.step import preflight
from steps.runtime.errors import BadInput


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MlflowServer]:
    for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("WANDB_API_KEY", "KUBERNETES_SERVICE_HOST", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with MlflowServer(authorization=f"Basic {base64.b64encode(b'me:canary').decode()}") as started:
        yield started


def look(folder: Path, report_to: str, uri: str = "", secret: str = "") -> list[str]:
    given = {"report_to": report_to, "tracking_uri": uri, "tracking_secret": secret}
    return preflight(Settings(work=folder, **given)).checked


def test_credentials_of_the_secret_are_checked(tmp_path: Path, server: MlflowServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    assert look(tmp_path, "mlflow", server.address, "my-mlflow") == [
        "Secret my-mlflow has MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD",
        f"MLflow at {server.address} responds",
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another-canary")
    with pytest.raises(BadInput, match=r"does not accept the credentials \(401\)") as refused:
        look(tmp_path, "mlflow", server.address, "my-mlflow")
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("report_to", "uri", "says"),
    [
        ("mlflow", "", "Secret keys not found, or it has no key MLFLOW_TRACKING_URI"),
        ("mlflow", "https://m.example.com", "has no key MLFLOW_TRACKING_USERNAME or MLFLOW_TRACKING_TOKEN"),
        ("wandb", "", "Secret keys not found, or it has no key WANDB_API_KEY"),
    ],
)
def test_secret_without_the_key_is_reported(
    tmp_path: Path, server: MlflowServer, report_to: str, uri: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        look(tmp_path, report_to, uri, "keys")


def test_server_that_does_not_respond_is_no_error(tmp_path: Path, server: MlflowServer) -> None:
    server.authorization, server.failing = "", {"": 1}
    [message] = look(tmp_path, "mlflow", server.address)
    reason = "it returned 400, unlike MLflow; training continues without it"
    assert message == f"MLflow at {server.address} was not checked: {reason}"
    [message] = look(tmp_path, "mlflow", "http://127.0.0.1:9")
    assert message == "MLflow at http://127.0.0.1:9 was not checked: Connection refused; training continues without it"


@pytest.mark.parametrize(("report_to", "name"), [("mlflow", "MLflow"), ("wandb", "Weights & Biases")])
def test_the_command_does_not_report_a_secret_that_it_cannot_read(
    tmp_path: Path, server: MlflowServer, monkeypatch: pytest.MonkeyPatch, report_to: str, name: str
) -> None:
    settings = Settings(
        work=tmp_path, report_to=report_to, tracking_uri=server.address, tracking_secret="keys", in_cluster=False
    )
    secret, tool, _ = preflight(settings).checked
    assert secret == "Secret keys was not checked: argotune validate --cluster reads it"
    assert tool == f"the server of {name} was not checked: its credentials are in Secret keys"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary")
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    checked = preflight(settings).checked
    assert checked[0] == secret, "the variables are those of the shell"
    assert (f"MLflow at {server.address} responds" in checked) is (report_to == "mlflow")
