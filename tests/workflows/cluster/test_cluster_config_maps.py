"""A ConfigMap that a Workspace names and no file contains is read from the cluster, over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from kubernetes_server import KubernetesServer

from workflows.cli import main

KAITO = Path(__file__).parents[2] / "data" / "kaito"
WORKSPACE, CONFIG = (KAITO / "kaito_workspace_tool_calling.yaml").read_text().split("---\n")[::-1]
KEY, NAME = "inference_config.yaml", yaml.safe_load(CONFIG)["metadata"]["name"]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    return str(tmp_path / "workspace.yaml")


def put_config(cluster: KubernetesServer, text: str = CONFIG, namespace: str = "argotune") -> None:
    document = yaml.safe_load(text)
    document["metadata"]["namespace"] = namespace
    cluster.put(document)


def submitted_text(cluster: KubernetesServer) -> str:
    return json.dumps(cluster.all("workflows"))


def test_submit_reads_it_in_the_namespace_of_the_run(cluster: KubernetesServer, workspace: str, capsys):
    put_config(cluster)
    assert main(["submit", workspace]) == 0
    assert "max-model-len" in submitted_text(cluster)
    put_config(cluster, CONFIG.replace("4096", "8192"), "default")
    claim = {"metadata": {"name": "argotune-models", "namespace": "default"}, "status": {"phase": "Bound"}}
    cluster.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {}, **claim})
    assert main(["submit", workspace, "-n", "default"]) == 0
    assert "8192" in submitted_text(cluster)


def test_a_file_wins_over_the_cluster(cluster: KubernetesServer, workspace: str, tmp_path: Path):
    put_config(cluster, CONFIG.replace("4096", "8192"))
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert main(["submit", workspace, str(tmp_path / "config.yaml")]) == 0
    assert "8192" not in submitted_text(cluster)
    assert not [call for call in cluster.calls if call.resource == "configmaps"]


def test_a_missing_one_has_the_message_of_kaito(cluster: KubernetesServer, workspace: str, capsys):
    assert main(["submit", workspace]) == 2
    shown = capsys.readouterr().err
    assert f"ConfigMap '{NAME}' specified in 'config' not found in namespace 'argotune'" in shown
    assert f"error: {workspace}:" in shown and "kubectl apply" in shown
    assert not cluster.all("workflows")


def test_its_errors_name_the_line_in_its_text(cluster: KubernetesServer, workspace: str, capsys):
    put_config(cluster, CONFIG.replace("max-model-len: 4096", "max-model-len: many"))
    assert main(["submit", workspace]) == 2
    text = yaml.safe_load(CONFIG)["data"][KEY]
    line = next(i for i, content in enumerate(text.splitlines(), 1) if "max-model-len" in content)
    assert f"error: ConfigMap {NAME}:{line}: inference_config.vllm.max-model-len" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", [{}, {"other": "x"}, {"inference_config.yaml": "vllm: ["}, {"inference_config.yaml": 1}]
)
def test_invalid_content_is_an_error_with_a_fix(cluster: KubernetesServer, workspace: str, capsys, data):
    cluster.put(yaml.safe_load(CONFIG) | {"data": data, "metadata": {"name": NAME, "namespace": "argotune"}})
    assert main(["submit", workspace]) == 2
    shown = capsys.readouterr().err
    assert f"error: ConfigMap {NAME}" in shown and "fix:" in shown and "unexpected" not in shown


def test_without_permission_the_fix_is_its_file(cluster: KubernetesServer, workspace: str, capsys):
    put_config(cluster)
    cluster.forbidden.add(("get", "configmaps"))
    assert main(["submit", workspace]) == 2
    assert f"kubectl get configmap {NAME} --namespace argotune --output yaml" in capsys.readouterr().err


def test_an_argo_server_is_not_asked_for_it(cluster: KubernetesServer, workspace: str, capsys, monkeypatch):
    monkeypatch.setenv("ARGO_SERVER", "127.0.0.1:1")
    assert main(["submit", workspace]) == 2
    assert "an Argo server does not read ConfigMaps" in capsys.readouterr().err


def test_a_dry_run_of_the_client_and_a_broken_file_send_nothing(cluster: KubernetesServer, workspace: str, capsys):
    put_config(cluster)
    assert main(["submit", workspace, "--dry-run=client"]) == 2
    assert "argotune submit reads it from the cluster" in capsys.readouterr().err
    Path(workspace).write_text(WORKSPACE + "\n---\na: [\n")
    assert main(["submit", workspace]) == 2
    assert "not found" not in capsys.readouterr().err
    assert cluster.calls == []


def test_validate_reads_it_with_the_flag_cluster(cluster: KubernetesServer, workspace: str, capsys):
    put_config(cluster, CONFIG.replace("max-model-len: 4096", "max-model-len: many"))
    assert main(["validate", workspace]) == 2
    assert "not found in this file" in capsys.readouterr().err
    assert main(["validate", workspace, "--cluster", "-n", "argotune"]) == 2
    assert f"ConfigMap {NAME}:" in capsys.readouterr().err


def test_compiled_documents_of_several_files_are_submitted_together(cluster: KubernetesServer, tmp_path: Path, capsys):
    compiled = Path(__file__).parents[3] / "argo" / "smollm2_135m_qlora_parquet.yaml"
    (tmp_path / "a.yaml").write_text(compiled.read_text())
    (tmp_path / "b.yaml").write_text(compiled.read_text())
    assert main(["submit", str(tmp_path)]) == 0
    assert len(cluster.all("workflows")) == 2
    (tmp_path / "c.yaml").write_text(WORKSPACE)
    assert main(["submit", str(tmp_path)]) == 2
    assert f"error: {tmp_path / 'c.yaml'}: contains no Argo object" in capsys.readouterr().err
