"""The same commands with an Argo server (ARGO_SERVER)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argo_run import MAIN, NAME, ArgoRun
from fake_argo_server import ArgoServer
from faults import read_timeout

from workflows.cli import main
from workflows.cluster import argo_server, kubernetes_api, watch
from workflows.cluster.backoff import new_backoff
from workflows.cluster.failures import ApiFailure
from workflows.cluster.watch import follow
from workflows.cluster.workflows_api import Scope

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")
RETRAINING = str(ROOT / "examples" / "smollm2_135m_retraining.yaml")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ArgoServer]:
    with ArgoServer() as argo:
        for name in ("KUBECONFIG", "ARGO_BASE_HREF", "ARGOTUNE_SITE"):
            monkeypatch.delenv(name, raising=False)
        environment = {"ARGO_SERVER": argo.address, "ARGO_SECURE": "false", "ARGO_TOKEN": argo.token}
        environment |= {"ARGO_NAMESPACE": "argotune", "HOME": str(tmp_path), "NO_PROXY": "*"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield argo


@pytest.fixture
def api(server, waits):
    api = argo_server.connect("argotune")
    api._sleep = waits.append
    return api


def test_workspace_is_submitted_completely(server, capsys):
    assert main(["submit", EXAMPLE, "-p", "epochs=1"]) == 0
    (created,) = server.objects["workflows"].values()
    assert capsys.readouterr().out == f"Workflow {created['metadata']['name']} created in namespace argotune\n"
    assert {item["name"]: item["value"] for item in created["spec"]["arguments"]["parameters"]}["epochs"] == "1"
    for kind in ("template", "cluster-template", "cron"):
        assert main(["submit", RETRAINING, "--as", kind]) == 0
    collections = {"workflows", "workflow-templates", "cluster-workflow-templates", "cron-workflows"}
    assert set(server.objects) == collections
    assert main(["submit", RETRAINING, "--as", "cron"]) == 2
    assert main(["submit", EXAMPLE, "--dry-run=server"]) == 0
    assert len(server.objects["workflows"]) == 1


def test_fields_unknown_to_heras_models_are_sent_and_read(server, capsys):
    """A field of Argo 4.1, and a number as a parameter's value, which Argo allows."""
    document = ArgoRun().now()
    document["spec"]["podResources"] = {"requests": {"cpu": "1"}}
    document["spec"]["arguments"] = {"parameters": [{"name": "x", "value": 3}]}
    server.put(document)
    assert main(["ls", "-o", "name"]) == 0
    assert capsys.readouterr().out == f"{NAME}\n"
    sent = argo_server.connect("argotune")
    document["metadata"]["name"] = "other"
    sent.create(document)
    assert server.objects["workflows"]["other"]["spec"]["podResources"] == {"requests": {"cpu": "1"}}


def test_watching_ends_with_the_runs_exit_code(server, capsys):
    run = ArgoRun().step("tune", "Failed", message="main: Error (exit code 4)", exit_code=4)
    server.put(run.phase("Failed").now())
    server.logs[run.pod("tune")] = [
        "2026-08-21T10:00:00.000000001Z error: no quota",
        "2026-08-21T10:00:01Z   fix: ask",
    ]
    assert main(["status", NAME, "--watch"]) == 4
    assert "error: no quota\n  fix: ask" in capsys.readouterr().err
    assert main(["logs", NAME]) == 0
    assert capsys.readouterr().out == "[tune] error: no quota\n[tune]   fix: ask\n"


def test_stop_terminate_and_approve(server, capsys):
    server.put(ArgoRun([*MAIN[:4], "approval", *MAIN[4:]]).suspended().now())
    assert main(["approve", NAME]) == 0
    (node,) = [
        node for node in server.objects["workflows"][NAME]["status"]["nodes"].values() if node["type"] == "Suspend"
    ]
    assert (node["phase"], node["outputs"]["parameters"]) == ("Succeeded", [{"name": "approve", "value": "YES"}])
    assert main(["stop", NAME, "--cluster"]) == 0
    assert server.objects["workflows"][NAME]["spec"]["shutdown"] == "Stop"
    assert main(["stop", NAME, "--terminate"]) == 0
    assert server.objects["workflows"][NAME]["spec"]["shutdown"] == "Terminate"


def test_error_messages(server, capsys, monkeypatch):
    assert main(["ls"]) == 0
    assert "namespace argotune; list all" in capsys.readouterr().err
    assert main(["status", "none"]) == 2
    assert "run none not found" in capsys.readouterr().err
    monkeypatch.setenv("ARGO_TOKEN", "Bearer canary")
    assert main(["ls"]) == 1
    stderr = capsys.readouterr().err
    assert "rejected your credentials" in stderr and "canary" not in stderr
    monkeypatch.setenv("ARGO_SERVER", "127.0.0.1:9")
    assert main(["ls"]) == 1
    assert "connection refused" in capsys.readouterr().err


def test_a_kubeconfig_flag_overrides_the_server(server, capsys, tmp_path):
    assert main(["ls", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert server.requests == []


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_failed_request_is_retried(kind, call, server, api, monkeypatch):
    monkeypatch.setattr(argo_server, "READ", read_timeout(kind))
    server.faults.fail(kind, call)
    document = ArgoRun().now()
    document["metadata"]["annotations"] = {kubernetes_api.SUBMISSION: "f00"}
    assert api.create(document)["metadata"]["name"] == NAME
    assert [item["metadata"]["name"] for item in api.list(Scope()).items] == [NAME]
    api.shut_down(NAME, terminate=False)
    assert api.get(NAME)["spec"]["shutdown"] == "Stop"
    assert server.faults.happened
    posted = [path for method, path, _ in server.requests if method == "POST"]
    assert len(server.objects["workflows"]) == 1 and len(posted) <= 2


@pytest.mark.parametrize("kind", ["reset", "429", "500"])
def test_a_run_is_watched_across_disconnects_and_expired_versions(kind, server, api, waits, monkeypatch):
    monkeypatch.setattr(watch, "CONTROLLER_SECONDS", 1)
    monkeypatch.setattr(watch, "WATCH_SECONDS", 1)
    run = ArgoRun()
    server.put(run.phase("Running").now())
    messages: list[str] = []
    states = follow(api, NAME, messages.append, new_backoff(waits.append))
    next(states)
    server.faults.fail(kind, 2)
    server.put(run.phase("Running", "one").now())
    assert next(states)["status"]["message"] == "one"
    for _ in range(2):
        server.put(run.phase("Running", "two").now())
    server.forget()
    assert next(states)["status"]["message"] == "two"
    server.put(run.phase("Succeeded").now())
    assert [watch.phase(state) for state in states][-1] == "Succeeded"
    assert server.faults.happened


def test_the_error_of_a_stream(server, api):
    with pytest.raises(ApiFailure) as failed:
        raise argo_server._stream_failure(api._request("watch", "workflows"), {"grpc_code": 7, "message": "no"})
    assert failed.value.status == 403
