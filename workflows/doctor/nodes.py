"""Checks of nodes: GPUs, device plugin, Karpenter, images, and DNS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import presets
from steps.kubernetes.client import NODES
from steps.kubernetes.pod_policy import INSTANCE_TYPE_LABEL
from steps.oci import reference, registry
from steps.runtime.errors import StepError
from workflows.doctor.finding import DEFINITIONS, ENDPOINT_SLICES, Finding, Site, fail, not_checked, ok
from workflows.plan.pods import for_pod

GPU_LABELS = ("nvidia.com/gpu.present", "accelerator", "cloud.google.com/gke-accelerator")
MAX_WAIT_SECONDS = 0.2
PLUGIN = "install the device plugin or the GPU operator: https://github.com/NVIDIA/k8s-device-plugin"


def check_gpus(site: Site) -> Iterator[Finding]:
    """Check that nodes offer the GPU resource, and that each node with GPUs does (its device plugin runs)."""
    resource = site.plan.resource.gpu_resource
    nodes = site.cluster.list(NODES)
    offered = {node["metadata"]["name"]: _amount(node, resource) for node in nodes if _is_ready(node)}
    total, with_gpus = sum(offered.values()), sum(count > 0 for count in offered.values())
    if total:
        yield ok("GPUs", f"{total} {resource} on {with_gpus} of {len(nodes)} nodes")
    elif site.plan.nodes.provider not in ("", "autoscaler"):
        yield ok("GPUs", f"none now; runs create nodes with {site.plan.nodes.provider}")
    else:
        fix = "add a GPU node, or let runs create them: nodes.provider in the site profile (docs/NODES.md)"
        yield fail("GPUs", f"no ready node offers {resource}; an autoscaler can still add one", fix)
    expected = [node["metadata"]["name"] for node in nodes if _has_gpu(node)]
    silent = [name for name in expected if not offered.get(name)]
    if silent:
        yield fail("device plugin", f"nodes with GPUs that offer none: {', '.join(silent)}", PLUGIN)
    elif total:
        yield ok("device plugin", "every node with GPUs offers them")
    else:
        yield not_checked("device plugin", "no node has GPUs")


def check_karpenter(site: Site) -> Iterator[Finding]:
    """Check the kinds of Karpenter, if runs create nodes with it."""
    if site.plan.nodes.provider != "karpenter":
        return
    for plural in ("nodepools", "nodeclaims"):
        if site.cluster.get(DEFINITIONS, f"{plural}.karpenter.sh") is None:
            fix = "install Karpenter, or set another nodes.provider in the site profile"
            yield fail("Karpenter", f"{plural}.karpenter.sh is not installed", fix)
            return
    yield ok("Karpenter", "its kinds are installed")


def check_images(site: Site) -> Iterator[Finding]:
    """Check that each image is on a node, or in its registry by the credentials of this machine."""
    try:
        present = {name for node in site.cluster.list(NODES) for name in _images(node)}
    except StepError:
        present = set()
    images = site.plan.images
    for step, image in {"control": images.control, "tune": images.tune, "serve": images.serve}.items():
        if image in present:
            yield ok(f"image {step}", f"{image} (on a node)")
        else:
            yield _in_registry(site, step, image)


def check_dns(site: Site) -> Iterator[Finding]:
    """Check that the cluster's DNS has a ready address."""
    slices = site.cluster.list(ENDPOINT_SLICES, "kube-system", labels="kubernetes.io/service-name=kube-dns")
    ready = [
        address
        for item in slices
        for endpoint in item.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready", True) is not False
        for address in endpoint.get("addresses") or []
    ]
    if ready:
        yield ok("DNS", f"kube-dns has {len(ready)} ready addresses")
    elif slices:
        fix = "kubectl get pods --namespace kube-system --selector k8s-app=kube-dns"
        yield fail("DNS", "kube-dns has no ready address", fix)
    else:
        yield not_checked("DNS", "no Service kube-dns in kube-system; the cluster can have another DNS")


def _in_registry(site: Site, step: str, image: str) -> Finding:
    name = f"image {step}"
    pod = "serve" if step == "serve" else "all"
    try:
        if registry.manifest_exists(reference.parse(image), wait=_wait_briefly):
            return ok(name, f"{image} (in its registry)")
    except StepError as error:
        secrets = ", ".join(for_pod(site.plan.pods, pod).image_pull_secrets or [])
        where = f"; nodes pull it with {secrets}" if secrets else ""
        return not_checked(name, f"{image}: {error.message}{where}", error.fix)
    fix = f"build and push it (containers/README.md), and set images.{step} in the site profile"
    return fail(name, f"{image} not found in its registry and on no node", fix)


def _wait_briefly(seconds: float) -> None:
    """Wait between attempts, but shorter than a step does: a user waits for the result."""
    time.sleep(min(seconds, MAX_WAIT_SECONDS))


def _images(node: dict[str, Any]) -> list[str]:
    return [name for image in (node.get("status") or {}).get("images") or [] for name in image.get("names") or []]


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def _amount(node: dict[str, Any], resource: str) -> int:
    try:
        return int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))
    except ValueError:
        return 0


def _has_gpu(node: dict[str, Any]) -> bool:
    """Return True if labels say that a node has GPUs: of NVIDIA's feature discovery, of clouds, or its size."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(label) not in (None, "", "false") for label in GPU_LABELS):
        return True
    try:
        return presets.sku(labels.get(INSTANCE_TYPE_LABEL) or "").gpus > 0
    except presets.UnknownSku:
        return False
