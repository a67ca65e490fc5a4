"""Image volumes of the fake Kubernetes API: enabled, disabled, or unknown."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes_server import KubernetesServer

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import KubernetesClient
from steps.rollout.service_manifests import DEPLOYMENTS


@pytest.fixture
def api(cluster: KubernetesServer) -> KubernetesClient:
    return kubernetes_client.connect()


def deployment(image: str) -> dict[str, Any]:
    names = ("adapter", "tmp")
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in names]
    volumes = [{"name": names[0], "image": {"reference": "r/a@sha256:0"}}, {"name": names[1], "emptyDir": {}}]
    spec = {"containers": [{"name": "serve", "image": image, "volumeMounts": mounts}], "volumes": volumes}
    template = {"metadata": {"labels": {"app": "phi"}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "phi"},
        "spec": {"selector": {"matchLabels": {"app": "phi"}}, "template": template},
    }


def mounted(document: dict[str, Any]) -> dict[str, list[str]]:
    """Kind of volume by the name of what is mounted."""
    spec = document["spec"]["template"]["spec"]
    kinds = {volume["name"]: sorted(volume.keys() - {"name"}) for volume in spec["volumes"]}
    return {mount["name"]: kinds[mount["name"]] for mount in spec["containers"][0]["volumeMounts"]}


def test_they_are_kept_dropped_or_forgotten(api: KubernetesClient, cluster: KubernetesServer) -> None:
    found = {}
    for gate in ("on", "off", "unknown"):
        cluster.image_volumes = gate
        found[gate] = mounted(api.create(DEPLOYMENTS, deployment("serve:1"), dry_run=True))
    assert found["on"] == {"adapter": ["image"], "tmp": ["emptyDir"]}
    assert found["off"] == {"tmp": ["emptyDir"]}
    assert found["unknown"] == {"adapter": ["emptyDir"], "tmp": ["emptyDir"]}
    assert api.get(DEPLOYMENTS, "phi") is None


def test_what_has_them_keeps_them(api: KubernetesClient, cluster: KubernetesServer) -> None:
    cluster.image_volumes = "on"
    api.apply(DEPLOYMENTS, deployment("serve:1"))
    cluster.image_volumes = "off"
    assert mounted(api.apply(DEPLOYMENTS, deployment("serve:2"))) == {"adapter": ["image"], "tmp": ["emptyDir"]}
