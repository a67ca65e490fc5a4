"""Options, settings and result of the provision step; release has those of a run and its cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from steps.runtime.options import Options, Pattern

GPU = "nvidia.com/gpu"
Zone = Annotated[str, Pattern("[a-z0-9]([a-z0-9-]*[a-z0-9])?", "a zone such as 1 or eastus-1")]
NodeClass = Annotated[
    str,
    Pattern(r"([A-Za-z0-9]+(\.[-a-z0-9.]+)?/)?[-a-z0-9.]+", "a node class as NAME, KIND/NAME or KIND.GROUP/NAME"),
]


class ClusterRef(Options):
    """The cluster that nodes belong to."""

    provider: Literal["autoscaler", "existing", "aks", "karpenter"] = "autoscaler"
    """Provider of the GPU nodes. autoscaler: pods request GPUs, and the cluster's autoscaler adds nodes; existing:
    existing nodes are checked; aks, karpenter: the run creates a node pool, and releases it at its end."""
    subscription: str = ""
    """AKS: id of the Azure subscription of the managed cluster."""
    resource_group: str = ""
    """AKS: resource group of the managed cluster."""
    cluster: str = ""
    """AKS: name of the managed cluster."""


class NodesOptions(Options):
    """Acceptable alternatives (``pipeline.nodes``)."""

    fallback_instance_types: list[str] = []
    """Instance types to try, in this order, when `resource.instanceType` is not available."""
    spot: bool = False
    """Try spot capacity first: cheaper, but the cloud can reclaim it; the training then continues from its last
    checkpoint on the next node. Regular machines are the fallback."""
    zones: list[Zone] = []
    """Zones to try, in this order, such as 1 or eastus-1; empty: any zone of the region."""


class NodePoolOptions(ClusterRef, NodesOptions):
    """Settings for creating nodes."""

    node_class: NodeClass = "default"
    """Karpenter: name of an AKSNodeClass, KIND/NAME (KaitoNodeClass/default), or KIND.GROUP/NAME for other clouds."""

    image_family: Literal["", "ubuntu", "azurelinux"] = ""
    """AKS: operating system of the nodes, ubuntu or azurelinux (KAITO annotation kaito.sh/node-image-family); empty:
    the default of AKS."""


class ReleaseSettings(ClusterRef):
    """The run whose nodes are released."""

    work: Path
    """Work folder."""
    run: str = ""
    """Uid of the Workflow; all nodes of a run carry it as a label."""
    deadline_seconds: int = Field(1500, gt=0)
    """Time to wait for the cloud before the step fails and is retried."""


class Settings(ReleaseSettings, NodePoolOptions):
    """Check that the requested nodes exist, or create them."""

    instance_type: str = ""
    """Requested instance type (KAITO resource.instanceType); empty: any."""
    count: int = Field(1, ge=1)
    """Number of machines (KAITO resource.count)."""
    gpus: int = Field(1, ge=0)
    """GPUs of each machine that the pods request."""
    gpu_resource: str = GPU
    """Resource name of the GPUs; for a part of a GPU (MIG): nvidia.com/mig-PROFILE."""
    labels: dict[str, str] = {}
    """Labels that the nodes must have (KAITO resource.labelSelector)."""
    workflow: str = ""
    """Name of the Workflow, as an annotation of the nodes."""
    workspace: str = ""
    """Name of the Workspace, as an annotation of the nodes."""
    namespace: str = ""
    """Namespace of the Workflow, where `argotune gc` looks for it."""
    lease_seconds: int = Field(26 * 3600, gt=0)
    """Age after which the nodes of the run count as orphaned."""

    @property
    def sizes(self) -> list[str]:
        """Acceptable instance types, in the order of preference."""
        return list(dict.fromkeys([self.instance_type, *self.fallback_instance_types]))


@dataclass(frozen=True)
class Result:
    """The hardware for tuning."""

    device: str
    """``cuda`` or ``cpu``."""
    nodes: list[str]
    """Names of the nodes."""
    summary: str
    """One-sentence summary."""
