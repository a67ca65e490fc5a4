"""No secret leaks: canaries are planted as secrets, all commands run, and all outputs are searched."""

from __future__ import annotations

import base64
import gzip
import json
import os
import secrets
import subprocess
import sys
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trainable_model
import yaml
from kubernetes_server import KubernetesServer
from mlflow_server import MlflowServer
from registry_fixture import PASSWORD, USER, Registry

pytestmark = pytest.mark.slow

WORKSPACE = """\
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {{name: canary}}
tuning:
  preset: {{name: smollm2-135m-instruct, presetOptions: {{modelAccessSecret: hf-token}}}}
  method: lora
  config: training
  input: {{volumeSource: {{persistentVolumeClaim: {{claimName: rows}}}}}}
  output: {{image: "{registry}/team/canary:1.0"}}
pipeline:
  evaluation: {{samples: 1, maxNewTokens: 4, maxLossRatio: 1000}}
  approval: true
  tracking: {{reportTo: mlflow, uri: "{mlflow}", project: canaries, secret: my-mlflow}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: training}}
data:
  training_config.yaml: |
    training_config:
      TrainingArguments: {{max_steps: 2, learning_rate: 2.0e-2, per_device_train_batch_size: 8}}
"""


class Site:
    """A user's machine and cluster, with a canary as every secret."""

    def __init__(self, folder: Path, registry: Registry, cluster: KubernetesServer, mlflow: MlflowServer) -> None:
        self.folder, self.cluster, self.mlflow = folder, cluster, mlflow
        self.outputs = folder / "outputs"
        self.outputs.mkdir()
        self.canaries = {
            name: f"canary{secrets.token_hex(12)}"
            for name in (
                *("HF_TOKEN", "AZURE_CLIENT_SECRET", "ARGO_TOKEN", "AWS_SECRET_ACCESS_KEY", "federated"),
                "MLFLOW_TRACKING_PASSWORD",
            )
        }
        home, locked = folder / "home", folder / "locked"
        locked.mkdir()
        auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (locked / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": auth}}}))
        (locked / "federated").write_text(self.canaries["federated"])
        kubeconfig = cluster.kubeconfig(locked / "kubeconfig")
        token = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]["token"]
        self.canaries |= {"docker auth": auth, "docker password": PASSWORD, "kubeconfig token": token}
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ARGO", "AZURE", "HF_"))},
            **{name: value for name, value in self.canaries.items() if name.isupper()},
            "AZURE_FEDERATED_TOKEN_FILE": str(locked / "federated"),
            "AZURE_TENANT_ID": "tenant",
            "AZURE_CLIENT_ID": "client",
            "DOCKER_CONFIG": str(locked),
            "KUBECONFIG": str(kubeconfig),
            "MLFLOW_TRACKING_USERNAME": "tuner",
            "HOME": str(home),
            "ARGOTUNE_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "NO_PROXY": "*",
        }
        trainable_model.make_model(home / "volumes" / "argotune-models" / "tiny")
        (folder / "rows").mkdir()
        trainable_model.write_rows(folder / "rows" / "a.parquet", trainable_model.chat_rows(30))
        self.workspace = folder / "workspace.yaml"
        self.workspace.write_text(WORKSPACE.format(registry=registry.address, mlflow=mlflow.address))
        account = f"tuner:{self.canaries['MLFLOW_TRACKING_PASSWORD']}"
        mlflow.authorization = f"Basic {base64.b64encode(account.encode()).decode()}"

    def argotune(self, *words: str, code: int = 0, **environment: str) -> str:
        """Run the command; its output is saved for the search."""
        done = subprocess.run(
            [sys.executable, "-m", "workflows.cli", *words],
            capture_output=True,
            text=True,
            timeout=1500,
            env={**self.environment, **environment},
            cwd=self.folder,
        )
        number = len(list(self.outputs.iterdir()))
        (self.outputs / f"{number:02}-{words[0]}").write_text(f"{words}\n{done.stdout}\n{done.stderr}")
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def leaks(self, folder: Path) -> list[str]:
        """Return the canaries in files below a directory, in any form that is easy to decode."""
        return [
            f"{name} as {form} in {file.relative_to(self.folder)}"
            for file in folder.rglob("*")
            if file.is_file()
            for text in _texts(file.read_bytes())
            for name, canary in self.canaries.items()
            for form, pattern in _forms(canary).items()
            if pattern in text
        ]


def _forms(canary: str) -> dict[str, bytes]:
    encoded = base64.b64encode(canary.encode()).decode().rstrip("=")[:-1]
    return {"itself": canary.encode(), "URL": urllib.parse.quote(canary).encode(), "base64": encoded.encode()}


def _texts(data: bytes) -> Iterator[bytes]:
    yield data
    if data.startswith(b"\x1f\x8b"):
        try:
            yield gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, password_registry: Registry) -> Iterator[Site]:
    with KubernetesServer() as cluster, MlflowServer() as mlflow:
        yield Site(tmp_path_factory.mktemp("site"), password_registry, cluster, mlflow)


def test_the_search_finds_planted_canaries(site: Site) -> None:
    folder = site.folder / "planted"
    folder.mkdir()
    for name, data in {
        "plain": site.canaries["HF_TOKEN"].encode(),
        "packed": gzip.compress(b"x" + site.canaries["ARGO_TOKEN"].encode()),
        "encoded": base64.b64encode(site.canaries["federated"].encode()),
    }.items():
        (folder / name).write_bytes(data)
    assert {line.rpartition(" ")[2] for line in site.leaks(folder)} == {
        f"planted/{name}" for name in os.listdir(folder)
    }


def test_documents_and_plans_contain_no_secret(site: Site) -> None:
    workspace = str(site.workspace)
    for words in (
        ["validate", workspace],
        ["plan", workspace],
        ["plan", workspace, "-o", "json"],
        ["compile", workspace],
        ["compile", workspace, "-o", "json"],
        ["compile", workspace, "--as", "template"],
    ):
        site.argotune(*words)
    compiled = site.argotune("compile", workspace)
    assert "hf-token" in compiled and "my-mlflow" in compiled, "Secrets are referenced by name"
    assert site.leaks(site.outputs) == []


def test_a_local_run_leaks_no_secret(site: Site) -> None:
    """Logs, results, checkpoints, adapter, image layout, report and state: the run folder and all volumes."""
    earlier = set(site.mlflow.runs)
    site.argotune(
        "run",
        str(site.workspace),
        *("--set", "model.repository=/mnt/models/tiny", "--name", "canary-1", "-p", "approve=YES"),
        *("--volume", f"rows={site.folder / 'rows'}"),
    )
    run = site.folder / "runs" / "canary-1"
    work = run / "volumes" / "work"
    package: dict[str, Any] = json.loads((work / "results" / "package.json").read_text())["result"]
    assert package["pushed"], "the password was never used"
    [tracked] = set(site.mlflow.runs) - earlier
    assert site.mlflow.runs[tracked].status == "FINISHED", "MLflow's password was never used"
    assert (work / "image" / "index.json").is_file()
    assert (work / "report" / "report.html").is_file()
    assert site.leaks(run) == []
    assert site.leaks(site.folder / "home") == []
    assert site.leaks(site.outputs) == []


def test_a_rejected_push_does_not_leak_the_password(site: Site) -> None:
    """The failing step shows the registry's response, not the request."""
    wrong = site.folder / "wrong"
    wrong.mkdir()
    site.canaries["wrong auth"] = base64.b64encode(b"tuner:canary-that-is-wrong").decode()
    site.canaries["wrong password"] = "canary-that-is-wrong"
    known = json.loads((site.folder / "locked" / "config.json").read_text())["auths"]
    auths = {registry: {"auth": site.canaries["wrong auth"]} for registry in known}
    (wrong / "config.json").write_text(json.dumps({"auths": auths}))
    site.argotune(
        *("run", str(site.workspace), "--set", "model.repository=/mnt/models/tiny", "--name", "canary-2"),
        *("-p", "approve=YES", "-p", "max-steps=1", "--volume", f"rows={site.folder / 'rows'}"),
        code=2,
        DOCKER_CONFIG=str(wrong),
    )
    (output,) = [file.read_text() for file in site.outputs.iterdir() if "'canary-2'" in file.read_text()]
    assert "401" in output or "accept" in output or "may not" in output, output
    assert site.leaks(site.folder / "runs") == []
    assert site.leaks(site.outputs) == []


def test_cluster_requests_and_outputs_contain_no_secret(site: Site) -> None:
    workspace = str(site.workspace)
    for claim in ("rows", "adapters", "argotune-models"):
        metadata = {"name": claim, "namespace": "argotune"}
        site.cluster.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": {}})
    name = site.argotune("submit", workspace, "-o", "name").strip()
    for words in (
        ["submit", workspace, "-o", "yaml"],
        ["submit", workspace, "--dry-run=server", "--debug"],
        ["submit", workspace, "--as", "template"],
        ["ls", "-o", "json"],
        ["status", name],
        ["status", name, "-o", "json"],
        ["logs", name],
        ["stop", name, "--cluster"],
    ):
        site.argotune(*words)
    # A rejected token, and unreachable servers.
    site.argotune("ls", code=1, KUBECONFIG=str(_kubeconfig(site, "refused", token="canary-refused")))
    site.argotune("ls", code=1, KUBECONFIG=str(_kubeconfig(site, "nowhere", server="http://127.0.0.1:9")))
    site.argotune("ls", code=1, ARGO_SERVER="127.0.0.1:9", ARGO_SECURE="false")
    sent = site.folder / "sent"
    sent.mkdir()
    calls = [{"body": call.body, "query": call.query, "verb": str(call)} for call in site.cluster.calls]
    (sent / "calls.json").write_text(json.dumps(calls))
    assert "create workflows" in (sent / "calls.json").read_text()
    assert site.leaks(sent) == []
    assert site.leaks(site.outputs) == []


def _kubeconfig(site: Site, name: str, token: str = "", server: str = "") -> Path:
    content = yaml.safe_load((site.folder / "locked" / "kubeconfig").read_text())
    if token:
        content["users"][0]["user"]["token"] = site.canaries[name] = token
    if server:
        content["clusters"][0]["cluster"]["server"] = server
    path = site.folder / "locked" / name
    path.write_text(yaml.safe_dump(content))
    return path
