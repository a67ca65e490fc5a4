"""A real cluster with Argo Workflows, named by KUBECONFIG, and argotune's installation in a namespace of its own.

The images are those of ``build_images``. Every wait has a limit and ends by an event of the cluster.
"""

from __future__ import annotations

import base64
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_cluster import ROOT, Cluster, run

from workflows.version import VERSION

ROWS = ROOT / "examples" / "data" / "oncall.parquet"
SMALL_MODEL = f"ghcr.io/argotune/small-model:{VERSION}"
SITE = {
    "images": {"tune": SMALL_MODEL, "serve": SMALL_MODEL},
    "storage": {"size": "1Gi"},
    # A node of two CPUs runs all pods.
    "pods": {
        "all": {"resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}, "imagePullPolicy": "IfNotPresent"},
    },
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("cluster")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """argotune's installation in a new namespace, which is deleted at the end."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip('KUBECONFIG names no cluster (CONTRIBUTING.md, "Cluster tests")')
    for program in ("kubectl", "argo"):
        assert shutil.which(program), f"{program} is not on the PATH"
    folder = tmp_path_factory.mktemp("cluster")
    namespace = f"argotune-test-{uuid.uuid4().hex[:6]}"
    site = folder / "site.yaml"
    site.write_text(yaml.safe_dump({"namespace": namespace, **SITE}))
    installed = Cluster(namespace, site, os.environ["KUBECONFIG"])
    _install(installed, folder)
    yield installed
    run(["kubectl", "delete", "namespace", namespace, "--timeout=120s"], "", True, 150)
    run(["kubectl", "delete", "--ignore-not-found", "clusterrole,clusterrolebinding", "--selector",
         "app.kubernetes.io/part-of=argotune"], "", True, 60)  # fmt: skip


def _install(cluster: Cluster, folder: Path) -> None:
    """Apply ``argo/install`` to the namespace, and the data and volumes of the tests."""
    install = folder / "install"
    shutil.copytree(ROOT / "argo" / "install", install)
    overlay = folder / "overlay"
    overlay.mkdir()
    # One node: all volumes can be shared, and no network policy needs to be there.
    patches = [{"target": {"kind": "PersistentVolumeClaim"},
                "patch": '[{"op": "replace", "path": "/spec/accessModes", "value": ["ReadWriteMany"]}]'}]  # fmt: skip
    kustomization = {"namespace": cluster.namespace, "resources": ["../install"], "patches": patches}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    cluster.kubectl("apply", "--kustomize", str(overlay))
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    rows = base64.b64encode(ROWS.read_bytes()).decode()
    cluster.apply(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "adapters"}, "spec": claim},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "oncall-rows"},
         "binaryData": {"oncall.parquet": rows}},
    )  # fmt: skip


Workspace = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Return a function that writes a Workspace which tunes the small model for a few steps; fields can be changed."""
    return lambda name, **fields: write_workspace(tmp_path, name, **fields)


@pytest.fixture(scope="module")
def module_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """``workspace`` for a fixture that several tests share."""
    folder = tmp_path_factory.mktemp("workspaces")
    return lambda name, **fields: write_workspace(folder, name, **fields)


def write_workspace(
    folder: Path,
    name: str,
    *,
    max_steps: int = 4,
    training: dict[str, Any] | None = None,
    pipeline: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a Workspace and its training configuration; ``fields`` replace those of the document."""
    document: dict[str, Any] = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": name},
        "resource": {"labelSelector": {"matchLabels": {"kubernetes.io/os": "linux"}}},
        "tuning": {
            "preset": {"name": "smollm2-135m-instruct"},
            "method": "qlora",
            "config": f"{name}-training",
            "input": {"volumeSource": {"configMap": {"name": "oncall-rows"}}},
            "output": {"volumeSource": {"persistentVolumeClaim": {"claimName": "adapters"}}},
        },
        "pipeline": {"evaluation": {"samples": 1}, **(pipeline or {})},
        **fields,
    }  # fmt: skip
    arguments = {"max_steps": max_steps, "per_device_train_batch_size": 2, **(training or {})}
    config = yaml.safe_dump({"training_config": {"TrainingArguments": arguments}})
    training = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-training"},
        "data": {"training_config.yaml": config},
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump_all([document, training]))
    return file
