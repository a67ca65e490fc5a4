"""What provision, release and ``argotune gc`` have in common: which nodes a run wants, and what it has left."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steps import step
from steps.provisioning.node_providers import RUN_LABEL

GPU = "nvidia.com/gpu"
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
"""As KAITO's nodes have it; the pods that compute tolerate it."""

SYSTEM_DOMAINS = ("kubernetes.io", "k8s.io", "kubernetes.azure.com")
"""Of labels that kubelet or the cloud sets; a pool that sets them is refused."""


@step.settings
class Place:
    """The cluster that nodes belong to."""

    provider: Literal["autoscaler", "existing", "aks", "karpenter"] = "autoscaler"
    """Who makes the nodes exist."""
    subscription: str = ""
    """AKS: id of the Azure subscription of the managed cluster."""
    resource_group: str = ""
    """AKS: resource group of the managed cluster."""
    cluster: str = ""
    """AKS: name of the managed cluster."""


@step.settings
class Run(Place):
    """The run that nodes are made for."""

    work: Path
    """Work folder."""
    run: str = ""
    """Uid of the Workflow; what is made for a run carries it, and is found again by it."""
    deadline_seconds: int = 1500
    """How long to wait for the cloud before the step fails, to be tried again."""


@step.settings
class Wanted(Run):
    """Look at what there is to compute on, or make it."""

    instance_type: str = ""
    """VM size asked for (KAITO resource.instanceType); empty: whatever is there."""
    count: int = 1
    """Machines asked for (KAITO resource.count)."""
    gpus: int = 1
    """GPUs of each machine that the pods ask for."""
    gpu_resource: str = GPU
    """What Kubernetes calls them; of parts of a GPU (MIG): nvidia.com/mig-PROFILE."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that the nodes must have (KAITO resource.labelSelector)."""
    workflow: str = ""
    """Name of the Workflow, for people who meet the nodes."""
    workspace: str = ""
    """Name of the Workspace, for people who meet the nodes."""
    namespace: str = ""
    """Namespace of the Workflow, where `argotune gc` looks for it."""
    fallback_instance_types: list[str] = field(default_factory=list)
    """Sizes to take, in this order, where the first is not to be had."""
    spot: bool = False
    """Whether unused capacity, which may be taken back, is tried before regular machines."""
    zones: list[str] = field(default_factory=list)
    """Zones to try, in this order; empty: wherever the region has room."""
    lease_seconds: int = 26 * 3600
    """After so long, what was made for the run belongs to nobody any more."""
    node_class: str = "default"
    """Karpenter: name of an AKSNodeClass, or KIND/NAME (KaitoNodeClass/default for gpu-provisioner)."""

    @property
    def sizes(self) -> list[str]:
        """Sizes in the order in which they are tried."""
        return list(dict.fromkeys([self.instance_type, *self.fallback_instance_types]))


@dataclass(frozen=True)
class Choice:
    """One kind of nodes that would do."""

    size: str
    spot: bool
    zone: str = ""
    """Empty: wherever the region has room."""

    def __str__(self) -> str:
        where = f" in zone {self.zone}" if self.zone else ""
        return f"{self.size} ({'spot' if self.spot else 'on demand'}){where}"


def choices(wanted: Wanted) -> list[Choice]:
    """All that would do, best first: spot before on demand, then the sizes in their order, then the zones."""
    return [
        Choice(size, spot, zone)
        for spot in ([True, False] if wanted.spot else [False])
        for size in wanted.sizes
        for zone in wanted.zones or [""]
    ]


@dataclass(frozen=True)
class Result:
    """What tuning will run on."""

    device: str
    """``cuda`` or ``cpu``."""
    nodes: list[str]
    summary: str
    """One sentence for people."""


@dataclass(frozen=True)
class Leftover:
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
        """Whether it belongs to no run any more."""
        return self.lease_until is not None and self.lease_until <= now


def labels(wanted: Wanted) -> dict[str, str]:
    """Labels of the nodes: those the pods select, without what nodes have by themselves."""
    own = {key: value for key, value in wanted.labels.items() if not _domain(key).endswith(SYSTEM_DOMAINS)}
    return {**own, RUN_LABEL: wanted.run}


def offered(node: Mapping[str, Any], resource: str = GPU) -> int:
    """How many of a resource a node has for pods (its ``allocatable``)."""
    return int(((node.get("status") or {}).get("allocatable") or {}).get(resource, 0))


def _domain(label: str) -> str:
    return label.partition("/")[0] if "/" in label else ""


def written(moment: datetime.datetime) -> str:
    """A moment as tags and annotations carry it."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds")


def read(text: str) -> datetime.datetime | None:
    """The moment that a tag or an annotation carries; None where it is none."""
    with suppress(ValueError):
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None
