"""What a cluster refuses, or does not answer, is told in plain words with what helps."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from argo_run import NAME, ArgoRun
from kubernetes_server_resources import Refused

from workflows.cli import main
from workflows.cluster import kubernetes_api
from workflows.cluster.workflows_api import Scope

ROOT = Path(__file__).parents[3]
EXAMPLE = str(ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")


@pytest.fixture
def error(capsys):
    """``error(words)`` is what the command says on standard error, and its exit code."""

    def run(*words: str) -> tuple[int, str]:
        code = main(list(words))
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err and shown.out == ""
        return code, shown.err

    return run


def test_no_kubeconfig(cluster, error, monkeypatch, tmp_path):
    monkeypatch.delenv("KUBECONFIG")
    code, said = error("ls")
    assert code == 2
    assert "there is no kubeconfig" in said and "az aks get-credentials" in said and "argotune run FILE" in said
    code, said = error("ls", "--kubeconfig", str(tmp_path / "none"))
    assert code == 2 and "none" in said


@pytest.mark.parametrize("text", ["", "{", "current-context: x\n", "apiVersion: v1\nkind: Config\nclusters: 3\n"])
def test_a_kubeconfig_that_is_none(cluster, error, tmp_path, text):
    (tmp_path / "broken").write_text(text)
    code, said = error("ls", "--kubeconfig", str(tmp_path / "broken"))
    assert code == 2 and "broken" in said


def test_a_context_that_is_none(cluster, error):
    code, said = error("ls", "--context", "production")
    assert code == 2 and "no context production" in said and "one of tests" in said


def test_nothing_listens(cluster, error, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        code, said = error("ls")
    assert code == 1 and "connection refused" in said and "(context tests)" in said


def test_credentials_that_are_not_accepted(cluster, error, tmp_path):
    config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    config["users"][0]["user"]["token"] = "canary-of-yesterday"
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    code, said = error("ls")
    assert code == 1 and "does not accept your credentials" in said and "canary" not in said


@pytest.mark.parametrize(
    ("verb", "resource", "words", "role"),
    [
        ("list", "workflows", ["ls"], "argotune-submitter"),
        ("create", "workflows", ["submit", EXAMPLE], "argotune-submitter"),
        ("get", "workflows", ["status", NAME], "argotune-submitter"),
        ("patch", "workflows", ["stop", NAME, "--cluster"], "argotune-operator"),
    ],
)
def test_rights_that_lack_are_named_with_the_role_that_gives_them(cluster, error, verb, resource, words, role):
    cluster.put(ArgoRun().step("tune", "Running").now())
    cluster.forbidden.add((verb, resource))
    code, said = error(*words)
    assert code == 1
    assert "tester may not" in said and "in namespace argotune" in said
    assert f"the verb {verb} on {resource}" in said and f"{role} of argo/install/roles.yaml" in said


def test_logs_that_may_not_be_read(cluster, error):
    cluster.put(ArgoRun().step("tune", "Running").now())
    cluster.forbidden.add(("get", "pods/log"))
    code, said = error("logs", NAME)
    assert code == 0 and "argotune-operator" in said


def test_argo_is_not_installed(cluster, error):
    cluster.without("argoproj.io")
    for words in (["ls"], ["submit", EXAMPLE], ["status", NAME]):
        code, said = error(*words)
        assert code == 2, said
        assert "Argo Workflows is not installed" in said and "argo/README.md" in said


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
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
        (Refused(404, "NotFound", 'namespaces "ml" not found', details={"name": "ml"}), 2, "there is no namespace ml"),
    ],
)
def test_refusals_of_a_document(cluster, error, refusal, code, words):
    def refuse(_) -> None:
        raise refusal

    cluster.every_call.append(refuse)
    found, said = error("submit", EXAMPLE)
    assert found == code and words in said and "fix:" in said


@pytest.mark.parametrize("kind", ["reset", "timeout", "429", "500", "truncated"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_one_call_that_fails_changes_no_outcome(kind, call, cluster, workflows_api, monkeypatch):
    """Creating, listing, stopping, reading: each is tried again; nothing is made twice."""
    monkeypatch.setattr(kubernetes_api, "READ", 0.3)
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


def test_a_name_that_another_took_meanwhile_is_not_taken_for_ones_own(cluster, workflows_api, monkeypatch):
    monkeypatch.setattr(kubernetes_api, "READ", 0.3)
    cluster.put(ArgoRun().now())
    cluster.faults.fail("500", 1)
    document = ArgoRun().now()
    document["metadata"]["annotations"] = {kubernetes_api.SUBMISSION: "f00"}
    with pytest.raises(kubernetes_api.ApiFailure, match="exists already"):
        workflows_api().create(document)
