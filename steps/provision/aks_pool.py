"""The node pool of a run: its name, the tags that identify the run, and the request that creates it."""

from __future__ import annotations

import datetime
import hashlib
from typing import TYPE_CHECKING, Any

from steps.provision.nodes import TAINT, NodeOption, OrphanedNodes, format_timestamp, labels, parse_timestamp
from steps.provision.settings import Settings

if TYPE_CHECKING:
    from azure.mgmt.containerservice.models import AgentPool

RUN, WORKFLOW, WORKSPACE = "argotune-run", "argotune-workflow", "argotune-workspace"
NAMESPACE = "argotune-namespace"
CREATED, LEASE = "argotune-made", "argotune-lease-until"
TAG_LENGTH = 256
"""Azure's maximum for the value of a tag."""
DONE, FAILED, DELETING = "Succeeded", ("Failed", "Canceled"), "Deleting"
OS_SKUS = {"ubuntu": "Ubuntu", "azurelinux": "AzureLinux"}
"""Values of osSKU (azure.mgmt.containerservice.models.OSSKU) by image family of KAITO."""


def to_option(pool: AgentPool) -> NodeOption:
    """Return the option that a pool was created from."""
    zones = list(pool.availability_zones or [])
    return NodeOption(str(pool.vm_size), pool.scale_set_priority == "Spot", zones[0] if zones else "")


def name(run: str) -> str:
    """Return the name of the pool of a run; deterministic, so that a run never has two.

    AKS requires at most 12 lowercase letters and digits, starting with a letter.
    """
    return f"at{hashlib.sha256(run.encode()).hexdigest()[:10]}"


def is_of(pool: AgentPool, run: str) -> bool:
    """Return True if a run created the pool."""
    return bool(run) and (pool.tags or {}).get(RUN) == run


def state(pool: AgentPool) -> str:
    """Return the provisioning state of a pool."""
    return str(pool.provisioning_state or "")


def body(settings: Settings, option: NodeOption, system_pool: Any, now: datetime.datetime) -> AgentPool:
    """Return the request that creates the nodes, with an autoscaler that removes idle ones and replaces lost ones."""
    from azure.mgmt.containerservice.models import AgentPool
    from azure.mgmt.containerservice.models import AgentPoolManagedClusterAgentPoolProfileProperties as Properties

    lease = now + datetime.timedelta(seconds=settings.lease_seconds)
    tags = {
        RUN: settings.run,
        WORKFLOW: settings.workflow,
        WORKSPACE: settings.workspace,
        NAMESPACE: settings.namespace,
    }
    tags |= {CREATED: format_timestamp(now), LEASE: format_timestamp(lease)}
    properties = Properties(
        vm_size=option.size,
        count=settings.count,
        enable_auto_scaling=True,
        min_count=0,
        max_count=settings.count,
        mode="User",
        os_type="Linux",
        os_sku=OS_SKUS[settings.image_family] if settings.image_family else None,
        type_properties_type="VirtualMachineScaleSets",
        node_taints=["{key}={value}:{effect}".format(**TAINT)],
        node_labels=labels(settings),
        tags={key: value[:TAG_LENGTH] for key, value in tags.items() if value},
        availability_zones=[option.zone] if option.zone else None,
        vnet_subnet_id=getattr(system_pool, "vnet_subnet_id", None),
        pod_subnet_id=getattr(system_pool, "pod_subnet_id", None),
    )
    if option.spot:
        properties.scale_set_priority = "Spot"
        properties.scale_set_eviction_policy = "Delete"
        properties.spot_max_price = -1.0  # up to the price of regular machines
    return AgentPool(properties=properties)


def to_orphan(pool: AgentPool) -> OrphanedNodes:
    """Return a pool as ``argotune gc`` lists it."""
    tags = pool.tags or {}
    return OrphanedNodes(
        provider="aks",
        name=str(pool.name),
        run=tags.get(RUN, ""),
        workspace=tags.get(WORKSPACE, ""),
        workflow=tags.get(WORKFLOW, ""),
        namespace=tags.get(NAMESPACE, ""),
        size=str(pool.vm_size),
        nodes=pool.count or 0,
        state=state(pool),
        created=parse_timestamp(tags.get(CREATED, "")),
        lease_until=parse_timestamp(tags.get(LEASE, "")),
    )
