"""The same verbs through an Argo server, where ARGO_SERVER says there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argo_run import MAIN, NAME, ArgoRun
from argo_server_stand_in import ArgoServer

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
    found = argo_server.connect("argotune")
    found._sleep = waits.append
    return found


def test_a_workspace_is_submitted_whole(server, capsys):
    assert main(["submit", EXAMPLE, "-p", "epochs=1"]) == 0
    (made,) = server.objects["workflows"].values()
    assert capsys.readouterr().out == f"Workflow {made['metadata']['name']} created in namespace argotune\n"
    assert {item["name"]: item["value"] for item in made["spec"]["arguments"]["parameters"]}["epochs"] == "1"
    for kind in ("template", "cluster-template", "cron"):
        assert main(["submit", RETRAINING, "--as", kind]) == 0
    collections = {"workflows", "workflow-templates", "cluster-workflow-templates", "cron-workflows"}
    assert set(server.objects) == collections
    assert main(["submit", RETRAINING, "--as", "cron"]) == 2
    assert main(["submit", EXAMPLE, "--dry-run=server"]) == 0
    assert len(server.objects["workflows"]) == 1


def test_what_heras_models_do_not_know_is_sent_and_read_all_the_same(server, capsys):
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
        one for one in server.objects["workflows"][NAME]["status"]["nodes"].values() if one["type"] == "Suspend"
    ]
    assert (node["phase"], node["outputs"]["parameters"]) == ("Succeeded", [{"name": "approve", "value": "YES"}])
    assert main(["stop", NAME, "--cluster"]) == 0
    assert server.objects["workflows"][NAME]["spec"]["shutdown"] == "Stop"
    assert main(["stop", NAME, "--terminate"]) == 0
    assert server.objects["workflows"][NAME]["spec"]["shutdown"] == "Terminate"


def test_errors_in_words(server, capsys, monkeypatch):
    assert main(["ls"]) == 0
    assert "no runs in namespace argotune" in capsys.readouterr().err
    assert main(["status", "none"]) == 2
    assert "there is no run none" in capsys.readouterr().err
    monkeypatch.setenv("ARGO_TOKEN", "Bearer canary")
    assert main(["ls"]) == 1
    said = capsys.readouterr().err
    assert "does not accept your credentials" in said and "canary" not in said
    monkeypatch.setenv("ARGO_SERVER", "127.0.0.1:9")
    assert main(["ls"]) == 1
    assert "connection refused" in capsys.readouterr().err


def test_a_kubeconfig_that_is_asked_for_wins(server, capsys, tmp_path):
    assert main(["ls", "--kubeconfig", str(tmp_path / "none")]) == 2
    assert server.requests == []


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_one_call_that_fails_changes_no_outcome(kind, call, server, api, monkeypatch):
    monkeypatch.setattr(argo_server, "READ", 0.3)
    server.faults.fail(kind, call)
    document = ArgoRun().now()
    document["metadata"]["annotations"] = {kubernetes_api.SUBMISSION: "f00"}
    assert api.create(document)["metadata"]["name"] == NAME
    assert [item["metadata"]["name"] for item in api.list(Scope()).items] == [NAME]
    api.shut_down(NAME, terminate=False)
    assert api.get(NAME)["spec"]["shutdown"] == "Stop"
    assert server.faults.happened
    created = [path for method, path, _ in server.requests if method == "POST"]
    assert len(server.objects["workflows"]) == 1 and len(created) <= 2


@pytest.mark.parametrize("kind", ["reset", "429", "500"])
def test_a_run_is_followed_through_drops_and_forgotten_versions(kind, server, api, waits, monkeypatch):
    monkeypatch.setattr(watch, "STARTING", 1)
    monkeypatch.setattr(watch, "WATCH", 1)
    run = ArgoRun()
    server.put(run.phase("Running").now())
    told: list[str] = []
    states = follow(api, NAME, told.append, new_backoff(waits.append))
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


def test_a_stream_that_fails_says_why(server, api):
    with pytest.raises(ApiFailure) as failed:
        raise argo_server._stream_failure(api._request("watch", "workflows"), {"grpc_code": 7, "message": "no"})
    assert failed.value.status == 403
