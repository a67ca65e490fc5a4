"""Failed cluster requests are reported with a cause and a fix."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from argo_run import NAME, ArgoRun
from faults import read_timeout
from kubernetes_server_resources import Refused

from workflows.cli import main
from workflows.cluster import kubernetes_api
from workflows.cluster.workflows_api import Scope

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")


@pytest.fixture
def error(capsys):
    """Return a function that runs a command and returns its exit code and standard error."""

    def run(*args: str) -> tuple[int, str]:
        code = main(list(args))
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err and shown.out == ""
        return code, shown.err

    return run


def test_no_kubeconfig(cluster, error, monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG")
    code, stderr = error("ls", "-A")
    assert code == 2
    assert "kubeconfig not found" in stderr and "az aks get-credentials" in stderr and "argotune run FILE" in stderr
    code, stderr = error("ls", "--kubeconfig", str(tmp_path / "none"))
    assert code == 2 and "none" in stderr


@pytest.mark.parametrize("text", ["", "{", "current-context: x\n", "apiVersion: v1\nkind: Config\nclusters: 3\n"])
def test_an_invalid_kubeconfig(cluster, error, tmp_path, text):
    (tmp_path / "broken").write_text(text)
    code, stderr = error("ls", "--kubeconfig", str(tmp_path / "broken"))
    assert code == 2 and "broken" in stderr


def test_an_unknown_context(cluster, error):
    code, stderr = error("ls", "--context", "production")
    assert code == 2 and "context production not found" in stderr and "use one of tests" in stderr


def test_connection_refused(cluster, error, tmp_path):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{bound.getsockname()[1]}"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        code, stderr = error("ls")
    assert code == 1 and "connection refused" in stderr and "(context tests)" in stderr


def test_rejected_credentials(cluster, error, tmp_path):
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["users"][0]["user"]["token"] = "canary-of-yesterday"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    code, stderr = error("ls")
    assert code == 1 and "rejected your credentials" in stderr and "canary" not in stderr


@pytest.mark.parametrize(
    ("verb", "resource", "args", "role"),
    [
        ("list", "workflows", ["ls"], "argotune-submitter"),
        ("create", "workflows", ["submit", EXAMPLE], "argotune-submitter"),
        ("get", "workflows", ["status", NAME], "argotune-submitter"),
        ("patch", "workflows", ["stop", NAME, "--cluster"], "argotune-operator"),
    ],
)
def test_a_missing_permission_is_reported_with_the_role_that_grants_it(cluster, error, verb, resource, args, role):
    cluster.put(ArgoRun().step("tune", "Running").now())
    cluster.forbidden.add((verb, resource))
    code, stderr = error(*args)
    assert code == 1
    assert "tester is not allowed to" in stderr and "in namespace argotune" in stderr
    assert f"the verb {verb} on {resource}" in stderr and f"{role} of argo/install/roles.yaml" in stderr


def test_logs_without_permission(cluster, error):
    cluster.put(ArgoRun().step("tune", "Running").now())
    cluster.forbidden.add(("get", "pods/log"))
    code, stderr = error("logs", NAME)
    assert code == 0 and "argotune-operator" in stderr


def test_argo_is_not_installed(cluster, error):
    cluster.without("argoproj.io")
    for args in (["ls"], ["submit", EXAMPLE], ["status", NAME]):
        code, stderr = error(*args)
        assert code == 2, stderr
        assert "Argo Workflows is not installed" in stderr and "argo/README.md" in stderr


@pytest.mark.parametrize(
    ("refusal", "code", "message"),
    [
        (
            Refused(
                422,
                "Invalid",
                "Workflow is invalid",
                causes=[{"field": "spec.templates[0].name", "message": "Invalid value"}],
            ),
            2,
            "spec.templates[0].name: Invalid value",
        ),
        (Refused(413, "RequestEntityTooLarge", "limit is 3145728"), 2, "too large"),
        (Refused(403, "Forbidden", "exceeded quota: argotune, requested: count/workflows=1"), 1, "quota"),
        (
            Refused(403, "Forbidden", 'admission webhook "policy" denied the request: no team label'),
            1,
            "no team label",
        ),
        (Refused(404, "NotFound", 'namespaces "ml" not found', details={"name": "ml"}), 2, "namespace ml not found"),
    ],
)
def test_a_rejected_document(cluster, error, refusal, code, message):
    def refuse(_) -> None:
        raise refusal

    cluster.every_call.append(refuse)
    exit_code, stderr = error("submit", EXAMPLE)
    assert exit_code == code and message in stderr and "fix:" in stderr


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_failed_request_is_retried(kind, call, cluster, workflows_api, monkeypatch):
    """Create, list, stop and get are retried; nothing is created twice."""
    monkeypatch.setattr(kubernetes_api, "READ", read_timeout(kind))
    cluster.faults.fail(kind, call)
    api = workflows_api()
    document = ArgoRun().now()
    document["metadata"]["annotations"] = {kubernetes_api.SUBMISSION: "f00"}
    assert api.create(document)["metadata"]["name"] == NAME
    assert [item["metadata"]["name"] for item in api.list(Scope()).items] == [NAME]
    api.shut_down(NAME, terminate=False)
    assert api.get(NAME)["spec"]["shutdown"] == "Stop"
    assert cluster.faults.happened
    assert len(cluster.all("workflows")) == 1


def test_an_object_of_another_client_is_not_mistaken_for_the_created_one(cluster, workflows_api):
    cluster.put(ArgoRun().now())
    cluster.faults.fail("500", 1)
    document = ArgoRun().now()
    document["metadata"]["annotations"] = {kubernetes_api.SUBMISSION: "f00"}
    with pytest.raises(kubernetes_api.ApiFailure, match="already exists"):
        workflows_api().create(document)
