"""Every command finds a run by its name, its Workspace and ``@latest``, in the namespace of the site profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from argo_run import MAIN, NAME, ArgoRun
from kubernetes_server import KubernetesServer

from workflows.cli import main

VERBS: dict[str, list[str]] = {
    "status": ["status", "NAME", "--cluster"],
    "logs": ["logs", "NAME", "--cluster"],
    "approve": ["approve", "NAME"],
    "stop": ["stop", "NAME", "--cluster"],
}
APPROVED = [*MAIN[:4], "approval", *MAIN[4:]]


def put_run(cluster: KubernetesServer, namespace: str) -> dict[str, Any]:
    document = ArgoRun(APPROVED).suspended().now()
    document["metadata"]["namespace"] = namespace
    cluster.put(document)
    return document


def command(verb: str, name: str) -> list[str]:
    return [name if word == "NAME" else word for word in VERBS[verb]]


@pytest.mark.parametrize("name", [NAME, "@latest", "WORKSPACE"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_run_is_found_by_name_workspace_and_latest(cluster: KubernetesServer, verb: str, name: str):
    document = put_run(cluster, "argotune")
    workspace = document["metadata"]["labels"]["argotune.dev/workspace"]
    assert main(command(verb, workspace if name == "WORKSPACE" else name)) == 0


@pytest.mark.parametrize("verb", [*VERBS, "ls"])
def test_the_namespace_is_that_of_the_site_profile(
    cluster: KubernetesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
):
    put_run(cluster, "default")
    (tmp_path / "site.yaml").write_text("namespace: default\n")
    monkeypatch.setenv("ARGOTUNE_SITE", str(tmp_path / "site.yaml"))
    assert main(["ls", "--cluster"] if verb == "ls" else command(verb, NAME)) == 0
    assert {call.namespace for call in cluster.calls} == {"default"}
    monkeypatch.delenv("ARGOTUNE_SITE")
    assert verb == "ls" or main(command(verb, NAME)) == 2, "the context's namespace has no such run"


def test_a_namespace_without_runs_hints_at_all(cluster: KubernetesServer, capsys: pytest.CaptureFixture[str]):
    put_run(cluster, "default")
    assert main(["ls", "--cluster"]) == 0
    assert "no runs in namespace argotune; list all namespaces with -A" in capsys.readouterr().err
    assert main(["ls", "-A"]) == 0
    assert NAME in capsys.readouterr().out
    assert main(["status", "nothing-like-it", "--cluster"]) == 2
    assert "argotune ls -A" in capsys.readouterr().err
