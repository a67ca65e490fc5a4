"""Adapters that a cluster mounts into servers straight from their images (Kubernetes' image volumes, KEP-4639).

The node pulls the image, with its own credentials or the pull secret, keeps it, and mounts it read-only; a server that
starts anew on that node needs no registry. A pod does not start without every image that it names. Servers that take
other adapters while they run (``hot_load``) therefore pull by themselves: long after, a new one of them would wait for
the image of an adapter that nobody asks for any more, and that a registry may have tidied up.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

from steps.kubernetes.client import KubernetesClient, Refused
from steps.rollout import service_manifests
from steps.rollout.service_manifests import DEPLOYMENTS, STABLE
from steps.rollout.service_release import Release
from steps.runtime.errors import BadInput
from steps.serving import desired_adapters
from steps.serving.desired_adapters import DesiredAdapter

Document = dict[str, Any]
ADAPTERS = "argotune.dev/adapters"
IMAGES = "/mnt/images"


def pinned(pod: Document, adapters: Iterable[DesiredAdapter]) -> Document:
    """The pod, with its adapters written on it: servers of other adapters are others, so none is hot-loaded."""
    own = copy.deepcopy(pod)
    own["metadata"]["annotations"][ADAPTERS] = " ".join(f"{one.name}@{one.digest}" for one in adapters)
    return own


def mounting(release: Release, secret: str) -> Release:
    """The release with each image of an adapter as a volume of its pods; ``secret`` is for the node, to pull them."""
    images = {
        adapter.short_digest: f"{adapter.image}@{adapter.digest}" for adapter in release.adapters if adapter.image
    }
    if not images:
        return release
    pod = copy.deepcopy(release.pod)
    spec = pod["spec"]
    (server,) = spec["containers"]
    server["env"].append({"name": desired_adapters.IMAGES_VARIABLE, "value": IMAGES})
    for place, reference in images.items():
        name = f"image-{place}"
        # A digest never means something else: what the node has is right.
        spec["volumes"].append({"name": name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}})
        # The whole image, since subPath came later than the volume (Kubernetes 1.33).
        server["volumeMounts"].append({"name": name, "mountPath": f"{IMAGES}/{place}", "readOnly": True})
    if secret:
        spec["imagePullSecrets"] = [{"name": secret}]
    return dataclasses.replace(release, pod=pod).started()


def choose(cluster: KubernetesClient, name: str, release: Release, before: Release | None, secret: str) -> Release:
    """The release with image volumes where the cluster has them, else as it is: the servers pull."""
    mounted = mounting(release, secret)
    if mounted is release:
        return release
    if before and before.shape == release.shape:
        print("adapters: the servers in service have pulled these already", flush=True)
        return release
    lacking = _lacking(cluster, name, mounted)
    if lacking:
        print(f"adapters: pulled by the servers, since {lacking}", flush=True)
        return release
    print("adapters: mounted from their images, which the cluster's nodes pull (image volumes)", flush=True)
    return mounted


def _lacking(cluster: KubernetesClient, name: str, release: Release) -> str:
    """Why the cluster mounts no images; empty where it does.

    The API server is asked by a creation that it only tries (dry run). Where it does not know image volumes, or has
    them switched off, they don't come back: it drops them, or takes them for empty folders.
    """
    body = service_manifests.deployment(name, STABLE, release, scaled=False, deadline=0)
    # A name of its own: an object that has image volumes keeps them, whatever the server does with new ones.
    body["metadata"] = {key: value for key, value in body["metadata"].items() if key != "name"}
    body["metadata"]["generateName"] = f"{name}-"
    try:
        made = cluster.create(DEPLOYMENTS, body, dry_run=True)
    except (BadInput, Refused) as error:
        return f"the cluster does not take them as volumes ({error.message})"
    kept = {volume["name"] for volume in made["spec"]["template"]["spec"].get("volumes") or [] if volume.get("image")}
    wanted = {volume["name"] for volume in release.pod["spec"]["volumes"] if volume.get("image")}
    return "" if wanted <= kept else "the cluster has no image volumes (Kubernetes 1.35, or the gate ImageVolume)"
