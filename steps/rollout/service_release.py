"""What is, or was, in service: kept in the cluster, so that anyone can go back to it.

A ConfigMap beside the service (``NAME-releases``) holds the release in service, the one before it, and the canary.
A release becomes the one in service once it has answered; a run that is killed before leaves the old record, and so
the next one knows what was good.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.kubernetes.client import CONFIG_MAPS, KubernetesClient
from steps.runtime import files
from steps.serving.desired_adapters import DesiredAdapter

DIGITS = 10


@dataclass(frozen=True)
class Release:
    """A pod, the adapters it serves, and how many of it."""

    pod: dict[str, Any]
    """Template of the pods, but for the list of adapters."""
    adapters: list[DesiredAdapter]
    base_name: str
    image_digest: str = ""
    """Of the adapter that was tuned."""
    replicas: int = 1
    revision: str = ""
    """Name of the pods that were started for it; a release that was hot-loaded has that of the one before."""

    @property
    def shape(self) -> str:
        """Digest of all but the adapters: servers of one shape take each other's adapters."""
        return files.sha256_text(json.dumps(self.pod, sort_keys=True)).rpartition(":")[2]

    @property
    def models(self) -> list[str]:
        """Names it answers to; none are known of a pod of the user's own."""
        return [self.base_name, *(adapter.name for adapter in self.adapters)]

    def started(self, apart_from: str = "") -> Release:
        """The release with a revision of its own, another than ``apart_from``."""
        adapters = [dataclasses.asdict(adapter) for adapter in self.adapters]
        text = json.dumps([self.shape, adapters, apart_from], sort_keys=True)
        return dataclasses.replace(self, revision=files.sha256_text(text).rpartition(":")[2][:DIGITS])


@dataclass(frozen=True)
class Releases:
    """What the cluster knows of a service."""

    current: Release | None = None
    previous: Release | None = None
    canary: Release | None = None
    percent: int = 0
    """Share of the canary."""
    gateway: str = ""
    scaled: bool = False
    """Whether an autoscaler says how many servers there are."""
    objects: list[str] = field(default_factory=list)
    """Kinds of what stands around the servers and need not (autoscalers, routes)."""

    def known(self) -> Sequence[Release]:
        """All of them."""
        return [release for release in (self.current, self.previous, self.canary) if release]


def read(cluster: KubernetesClient, name: str) -> Releases:
    """What is in service under a name; empty where nothing is."""
    document = cluster.get(CONFIG_MAPS, _name(name)) or {}
    try:
        given = json.loads((document.get("data") or {})["releases.json"])
        for part in ("current", "previous", "canary"):
            given[part] = _release(given[part]) if given.get(part) else None
        return Releases(**given)
    except (KeyError, TypeError, ValueError):
        return Releases()


def write(cluster: KubernetesClient, name: str, releases: Releases) -> None:
    """Keep what is in service."""
    labels = {"argotune.dev/service": name, "app.kubernetes.io/managed-by": "argotune"}
    content = json.dumps(dataclasses.asdict(releases), sort_keys=True)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(name), "labels": labels},
        "data": {"releases.json": content},
    }
    cluster.apply(CONFIG_MAPS, body)


def _release(given: dict[str, Any]) -> Release:
    return Release(**{**given, "adapters": [DesiredAdapter(**adapter) for adapter in given["adapters"]]})


def _name(name: str) -> str:
    return f"{name}-releases"
