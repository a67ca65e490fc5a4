"""Settings and result of the provision step; release takes those of a run and its cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from steps.runtime import entrypoint

GPU = "nvidia.com/gpu"


@entrypoint.settings
class ClusterRef:
    """The cluster that nodes belong to."""

    provider: Literal["autoscaler", "existing", "aks", "karpenter"] = "autoscaler"
    """Who makes the nodes exist."""
    subscription: str = ""
    """AKS: id of the Azure subscription of the managed cluster."""
    resource_group: str = ""
    """AKS: resource group of the managed cluster."""
    cluster: str = ""
    """AKS: name of the managed cluster."""


@entrypoint.settings
class ReleaseSettings(ClusterRef):
    """The run that nodes are made for."""

    work: Path
    """Work folder."""
    run: str = ""
    """Uid of the Workflow; what is made for a run carries it, and is found again by it."""
    deadline_seconds: int = 1500
    """How long to wait for the cloud before the step fails, to be tried again."""


@entrypoint.settings
class Settings(ReleaseSettings):
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
class Result:
    """What tuning will run on."""

    device: str
    """``cuda`` or ``cpu``."""
    nodes: list[str]
    summary: str
    """One sentence for people."""
