"""The releases of a service, recorded in the cluster for rollbacks.

The ConfigMap ``NAME-releases`` contains the current release, the previous one, and the canary. A release is recorded
after it has answered; a run that is killed before leaves the old record, so the next run knows the last good release.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.kubernetes.client import CONFIG_MAPS, KubernetesClient
from steps.runtime import files
from steps.runtime.json_text import parse_json
from steps.serving.desired_adapters import DesiredAdapter

SERVICE_LABEL = "argotune.dev/service"
"""Label of the objects of a service."""

NUM_DIGITS = 10
STABLE, CANARY = "stable", "canary"
"""Tracks of a service, each with its own Deployment."""


@dataclass(frozen=True)
class Release:
    """A pod template, the adapters that it serves, and the number of replicas."""

    pod: dict[str, Any]
    """Pod template without the list of adapters."""
    adapters: list[DesiredAdapter]
    base_name: str
    image_digest: str = ""
    """Digest of the image of the tuned adapter."""
    replicas: int = 1
    nodes: int = 1
    """Pods of a server."""
    group: str = ""
    """Kind of the object with the pods of several nodes (``service_group``); empty: a Deployment."""
    revision: str = ""
    """Revision of its pods; a hot-loaded release has that of the release before it."""

    @property
    def pod_template_hash(self) -> str:
        """Digest of the pod template; servers with the same template can hot-load each other's adapters."""
        return files.sha256_text(json.dumps(self.pod, sort_keys=True)).rpartition(":")[2]

    @property
    def models(self) -> list[str]:
        """Names that requests can use; only the base model's for a custom pod."""
        return [self.base_name, *(adapter.name for adapter in self.adapters)]

    def with_revision(self, other_than: str = "") -> Release:
        """Return the release with its revision; another one for each value of ``other_than``."""
        adapters = [dataclasses.asdict(adapter) for adapter in self.adapters]
        text = json.dumps([self.pod_template_hash, adapters, other_than], sort_keys=True)
        return dataclasses.replace(self, revision=files.sha256_text(text).rpartition(":")[2][:NUM_DIGITS])


@dataclass(frozen=True)
class Releases:
    """The recorded releases of a service."""

    current: Release | None = None
    previous: Release | None = None
    canary: Release | None = None
    percent: int = 0
    """Percentage of requests that the canary receives."""
    gateway: str = ""
    scaled: bool = False
    """True if an autoscaler sets the number of replicas."""
    objects: list[str] = field(default_factory=list)
    """Kinds of optional supporting objects (autoscalers, routes)."""
    attempted: list[str] = field(default_factory=list)
    """Kinds of objects with pods (``Release.group``) that a killed run has possibly left."""

    def retained(self) -> Sequence[Release]:
        """Return the current, previous and canary release, if recorded."""
        return [release for release in (self.current, self.previous, self.canary) if release]


def read_releases(cluster: KubernetesClient, name: str) -> Releases:
    """Return the recorded releases of a service; empty if there are none."""
    document = cluster.get(CONFIG_MAPS, _name(name)) or {}
    try:
        content = parse_json((document.get("data") or {})["releases.json"])
        for role in ("current", "previous", "canary"):
            content[role] = _parse_release(content[role]) if content.get(role) else None
        return Releases(**content)
    except (KeyError, TypeError, ValueError):
        return Releases()


def write_releases(cluster: KubernetesClient, name: str, releases: Releases) -> None:
    """Record the releases of a service."""
    labels = {SERVICE_LABEL: name, "app.kubernetes.io/managed-by": "argotune"}
    content = json.dumps(dataclasses.asdict(releases), sort_keys=True)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(name), "labels": labels},
        "data": {"releases.json": content},
    }
    cluster.apply(CONFIG_MAPS, body)


def _parse_release(content: dict[str, Any]) -> Release:
    return Release(**{**content, "adapters": [DesiredAdapter(**adapter) for adapter in content["adapters"]]})


def _name(name: str) -> str:
    return f"{name}-releases"
