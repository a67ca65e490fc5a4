"""Node options of a run, and orphaned nodes: shared by provision, release and ``argotune gc``."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steps.provision.node_providers import RUN_LABEL
from steps.provision.settings import GPU, ReleaseSettings, Settings
from steps.runtime.errors import BadInput, InsufficientCapacity

TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""The taint of KAITO's nodes; GPU pods tolerate it."""

SYSTEM_DOMAINS = ("kubernetes.io", "k8s.io", "kubernetes.azure.com")
"""Prefixes of labels set by kubelet or the cloud; a pool must not set them."""


@dataclass(frozen=True)
class NodeOption:
    """An acceptable combination of instance type, price and zone."""

    size: str
    spot: bool
    zone: str = ""
    """Empty: any zone of the region."""

    def __str__(self) -> str:
        zone = f" in zone {self.zone}" if self.zone else ""
        return f"{self.size} ({'spot' if self.spot else 'on demand'}){zone}"


@dataclass(frozen=True)
class OrphanedNodes:
    """Nodes that a run created, as ``argotune gc`` lists them."""

    provider: str
    name: str
    run: str
    workspace: str
    workflow: str
    namespace: str
    size: str
    nodes: int
    state: str
    created: datetime.datetime | None
    """None if unknown."""
    lease_until: datetime.datetime | None
    """None if unknown; then they never count as orphaned."""

    def expired(self, now: datetime.datetime) -> bool:
        """Return True if no run owns the nodes any more."""
        return self.lease_until is not None and self.lease_until <= now


def check_required(settings: Settings) -> None:
    """Reject settings without the values that are required to create nodes.

    Raises:
        BadInput: with each missing flag.
    """
    flags = {"--run": settings.run, "--instance-type": settings.instance_type}
    missing = [flag for flag, value in flags.items() if not value]
    if missing:
        raise BadInput(f"{' and '.join(missing)} required", "set resource.instanceType in the Workspace")


def check_run(settings: ReleaseSettings) -> None:
    """Reject settings without a run, whose nodes would be those of all runs.

    Raises:
        BadInput: the flag is missing.
    """
    if not settings.run:
        raise BadInput("--run is required", "pass the uid of the Workflow")


def node_options(settings: Settings) -> list[NodeOption]:
    """Return the acceptable options, best first: spot before on demand, then instance types, then zones."""
    return [
        NodeOption(size, spot, zone)
        for spot in ([True, False] if settings.spot else [False])
        for size in settings.sizes
        for zone in settings.zones or [""]
    ]


def no_option_available(
    settings: Settings, unavailable: Sequence[tuple[NodeOption, str]], fix: str
) -> InsufficientCapacity:
    """Return the error with the reason for each option."""
    lines = "".join(f"\n  {option}: {reason}" for option, reason in unavailable)
    return InsufficientCapacity(f"{settings.count} x {settings.instance_type} is not available:{lines}", fix)


def labels(settings: Settings) -> dict[str, str]:
    """Return the labels of the nodes: those that the pods select, without those that the system sets."""
    custom = {key: value for key, value in settings.labels.items() if not _domain(key).endswith(SYSTEM_DOMAINS)}
    return {**custom, RUN_LABEL: settings.run}


def allocatable(node: Mapping[str, Any], resource: str = GPU) -> int:
    """Return how many units of a resource a node has for pods (its ``allocatable``)."""
    return int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))


def format_timestamp(moment: datetime.datetime) -> str:
    """Return a timestamp as the value of a tag or an annotation."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")


def parse_timestamp(text: str) -> datetime.datetime | None:
    """Return the timestamp of a tag or an annotation; None if it is invalid."""
    with suppress(ValueError):
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None


def _domain(label: str) -> str:
    return label.partition("/")[0] if "/" in label else ""
