"""argotune's installation on a cluster: ``argo/install`` in a new namespace, with the data of the tests."""

from __future__ import annotations

import base64
import os
import uuid
from pathlib import Path
from typing import Any

import yaml
from real_cluster import ROOT, Cluster

from workflows.version import VERSION

ROWS = ROOT / "examples" / "data" / "oncall.parquet"
SMALL_MODEL = f"ghcr.io/argotune/small-model:{VERSION}"
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding")


def install(folder: Path, kubeconfig: str, registry: str) -> Cluster:
    """Apply ``argo/install`` to a new namespace, and the data and volumes of the tests."""
    namespace = f"argotune-test-{uuid.uuid4().hex[:6]}"
    site = folder / "site.yaml"
    site.write_text(yaml.safe_dump({"namespace": namespace, **site_profile(registry)}))
    cluster = Cluster(namespace, site, kubeconfig)
    cluster.apply(*_objects(cluster, folder))
    rows = base64.b64encode(ROWS.read_bytes()).decode()
    cluster.apply(
        volume_claim("adapters"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "oncall-rows"},
         "binaryData": {"oncall.parquet": rows}},
    )  # fmt: skip
    return cluster


def volume_claim(name: str) -> dict[str, Any]:
    """Return a claim for adapters."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def uninstall(cluster: Cluster) -> None:
    """Delete the namespace, and the permissions outside it."""
    for kind in CLUSTER_WIDE:
        cluster.kubectl("delete", kind, "--selector", f"argotune-test={cluster.namespace}")
    # Their pods would answer requests in progress for minutes.
    cluster.kubectl("delete", "workflows,deployments", "--all", "--wait=false")
    cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    # Not awaited: while other tests remove kinds of objects, the deletion of a namespace can take minutes.
    cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


def site_profile(registry: str) -> dict[str, Any]:
    """Return the site profile of a node of two CPUs, which runs all pods, and of a registry without TLS."""
    insecure = {"name": "ARGOTUNE_INSECURE_REGISTRIES", "value": registry}
    requests = {"cpu": "20m", "memory": "64Mi"}
    return {
        "images": {"tune": SMALL_MODEL, "serve": SMALL_MODEL},
        "storage": {"size": "1Gi"},
        "serviceAccounts": {step: f"argotune-{step}" for step in ("preflight", "provision", "release", "rollout")},
        "pods": {
            "all": {"resources": {"requests": requests}, "imagePullPolicy": "IfNotPresent", "env": [insecure]},
        },
    }


def _objects(cluster: Cluster, folder: Path) -> list[dict[str, Any]]:
    """Return the objects of ``argo/install`` for the namespace.

    Objects outside it get a separate name, so that installations in several namespaces do not share them.
    """
    overlay = folder / "overlay"
    overlay.mkdir()
    # One node: all volumes can be shared.
    patches = [{"target": {"kind": "PersistentVolumeClaim"},
                "patch": '[{"op": "replace", "path": "/spec/accessModes", "value": ["ReadWriteMany"]}]'}]  # fmt: skip
    resource = os.path.relpath(ROOT / "argo" / "install", overlay.resolve())
    kustomization = {"namespace": cluster.namespace, "resources": [resource], "patches": patches}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    output = cluster.kubectl("kustomize", str(overlay))
    objects = [document for document in yaml.safe_load_all(output) if document]
    for document in objects:
        if document["kind"] in CLUSTER_WIDE:
            document["metadata"]["name"] += f"-{cluster.namespace}"
            document["metadata"]["labels"]["argotune-test"] = cluster.namespace
        if document.get("roleRef", {}).get("kind") == "ClusterRole":
            document["roleRef"]["name"] += f"-{cluster.namespace}"
    return objects
