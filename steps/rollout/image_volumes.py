"""Adapters that a cluster mounts into servers directly from their images (Kubernetes image volumes, KEP-4639).

The node pulls the image with its credentials or the pull secret, caches it, and mounts it read-only; a server that
restarts on that node needs no registry. A pod does not start without all images in its spec. Servers that change
adapters at run time (``hot_load``) therefore pull the images: otherwise a new server would wait for the image of an
adapter that is no longer used and that the registry has possibly deleted.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from steps.kubernetes.client import KubernetesClient
from steps.kubernetes.errors import ApiError
from steps.rollout import service_manifests
from steps.rollout.service_manifests import DEPLOYMENTS
from steps.rollout.service_release import STABLE, Release
from steps.runtime.errors import BadInput
from steps.serving import desired_adapters
from steps.serving.desired_adapters import DesiredAdapter

Document = dict[str, Any]
ADAPTERS = "argotune.dev/adapters"
IMAGES = "/mnt/images"


def pin_adapters(pod: Document, adapters: Iterable[DesiredAdapter]) -> Document:
    """Return the pod with its adapters as an annotation: other adapters need other servers, so none is hot-loaded."""
    pinned = copy.deepcopy(pod)
    pinned["metadata"]["annotations"][ADAPTERS] = " ".join(f"{one.name}@{one.digest}" for one in adapters)
    return pinned


def mount_images(release: Release, secrets: Sequence[str]) -> Release:
    """Return the release with adapter images as volumes of its pods; ``secrets`` are the pull secrets of the node."""
    images = {one.short_digest: f"{one.image}@{one.digest}" for one in release.adapters if one.image}
    if not images:
        return release
    pod = copy.deepcopy(release.pod)
    spec = pod["spec"]
    (server,) = spec["containers"]
    server["env"].append({"name": desired_adapters.IMAGES_VARIABLE, "value": IMAGES})
    for digest, reference in images.items():
        name = f"image-{digest}"
        # A digest never changes its content, so the image in the node's cache is valid.
        spec["volumes"].append({"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}})
        # The whole image, because image volumes have no subPath before Kubernetes 1.33.
        server["volumeMounts"].append({"name": name, "mountPath": f"{IMAGES}/{digest}", "readOnly": True})
    if secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in secrets]
    return dataclasses.replace(release, pod=pod).with_revision()


def mount_if_supported(
    cluster: KubernetesClient, name: str, release: Release, current: Release | None, secrets: Sequence[str]
) -> Release:
    """Return the release with image volumes if the cluster supports them; otherwise the servers pull."""
    mounted = mount_images(release, secrets)
    if mounted is release:
        return release
    if current and current.pod_template_hash == release.pod_template_hash:
        print("adapters: already pulled by the running servers", flush=True)
        return release
    reason = _missing_support(cluster, name, mounted)
    if reason:
        print(f"adapters: pulled by the servers, because {reason}", flush=True)
        return release
    print("adapters: mounted from their images, pulled by the nodes (image volumes)", flush=True)
    return mounted


def _missing_support(cluster: KubernetesClient, name: str, release: Release) -> str:
    """Return the reason why the cluster cannot mount images, or "" if it can.

    A dry run of creating the Deployment shows it: an API server without image volumes drops them from its response, or
    returns empty directories.
    """
    body = service_manifests.deployment(name, STABLE, release, scaled=False, deadline=0)
    # A generated name: an existing object with image volumes keeps them even if they are disabled now.
    body["metadata"] = {key: value for key, value in body["metadata"].items() if key != "name"}
    body["metadata"]["generateName"] = f"{name}-"
    try:
        created = cluster.create(DEPLOYMENTS, body, dry_run=True)
    except (BadInput, ApiError) as error:
        return f"the cluster rejects image volumes ({error.message})"
    volumes = created["spec"]["template"]["spec"].get("volumes") or []
    accepted = {volume["name"] for volume in volumes if volume.get("image")}
    required = {volume["name"] for volume in release.pod["spec"]["volumes"] if volume.get("image")}
    missing = "the cluster has no image volumes (they need Kubernetes 1.35 or the feature gate ImageVolume)"
    return "" if required <= accepted else missing
