"""Node options of a run, and orphaned nodes: shared by provision, release and ``argotune gc``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steps.provision.node_providers import RUN_LABEL
from steps.provision.settings import GPU, Settings

TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""As KAITO's nodes have it; the pods that compute tolerate it."""

SYSTEM_DOMAINS = ("kubernetes.io", "k8s.io", "kubernetes.azure.com")
"""Prefixes of labels set by kubelet or the cloud; a pool must not set them."""


@dataclass(frozen=True)
class NodeOption:
    """One kind of nodes that would do."""

    size: str
    spot: bool
    zone: str = ""
    """Empty: wherever the region has room."""

    def __str__(self) -> str:
        where = f" in zone {self.zone}" if self.zone else ""
        return f"{self.size} ({'spot' if self.spot else 'on demand'}){where}"


def node_options(settings: Settings) -> list[NodeOption]:
    """All that would do, best first: spot before on demand, then the sizes in their order, then the zones."""
    return [
        NodeOption(size, spot, zone)
        for spot in ([True, False] if settings.spot else [False])
        for size in settings.sizes
        for zone in settings.zones or [""]
    ]


@dataclass(frozen=True)
class OrphanedNodes:
    """Something that a run made, as ``argotune gc`` shows it."""

    provider: str
    name: str
    run: str
    workspace: str
    workflow: str
    namespace: str
    size: str
    nodes: int
    state: str
    made: datetime.datetime | None
    """None where it doesn't say."""
    lease_until: datetime.datetime | None
    """None where it doesn't say; then it never counts as left behind."""

    def expired(self, now: datetime.datetime) -> bool:
        """Return True if no run owns it any more."""
        return self.lease_until is not None and self.lease_until <= now


def labels(settings: Settings) -> dict[str, str]:
    """Labels of the nodes: those the pods select, without what nodes have by themselves."""
    own = {key: value for key, value in settings.labels.items() if not _domain(key).endswith(SYSTEM_DOMAINS)}
    return {**own, RUN_LABEL: settings.run}


def allocatable(node: Mapping[str, Any], resource: str = GPU) -> int:
    """Return how many units of a resource a node has for pods (its ``allocatable``)."""
    return int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))


def _domain(label: str) -> str:
    return label.partition("/")[0] if "/" in label else ""


def format_timestamp(moment: datetime.datetime) -> str:
    """A moment as tags and annotations carry it."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")


def read(text: str) -> datetime.datetime | None:
    """The moment that a tag or an annotation carries; None where it is none."""
    with suppress(ValueError):
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None
