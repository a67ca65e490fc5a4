"""AKS node pools: each run creates one and deletes it at its end.

The pool's name is derived from the run's uid and its tags name the run, so a restarted step finds the pool in any
state. A pool with the tags of another run is never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from steps.provision import aks_capacity, aks_client, aks_errors, aks_nodes, aks_pool, nodes
from steps.provision.nodes import OrphanedNodes
from steps.provision.settings import ClusterRef, ReleaseSettings, Result, Settings
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from azure.mgmt.containerservice.models import AgentPool

    from steps.provision.aks_client import Cluster

REMOVAL_SECONDS = 1500
QUOTA_HELP = "request quota (aka.ms/azquotaincrease), or add instance types to pipeline.nodes.fallbackInstanceTypes"


def provision(settings: Settings, cluster: Cluster | None = None) -> Result:
    """Create the node pool of a run from the first available option, or find it, and wait until it is ready.

    Raises:
        InsufficientCapacity: no option is available, with the reason for each.
        BadInput: Azure rejects the credentials or the request.
        StepError: Azure failed, or did not finish in time; a retry of the step continues.
    """
    nodes.check_required(settings)
    cluster = cluster or aks_client.connect(settings)
    cluster.pause.until(settings.deadline_seconds)
    pool = _ensure_pool(cluster, settings)
    # An existing pool can have fewer nodes: the autoscaler removes idle ones and adds them for pending pods.
    names = aks_nodes.wait_for_gpus(settings, min(settings.count, pool.count or 0), cluster.pause)
    summary = f"node pool {pool.name}: {settings.count} x {aks_pool.to_option(pool)}, only for this run"
    return Result("cuda", names or [str(pool.name)], summary)


def release(settings: ReleaseSettings, cluster: Cluster | None = None) -> str:
    """Delete the node pool of a run, wait until it is deleted, and return a summary.

    Raises:
        StepError: as ``provision``.
    """
    nodes.check_run(settings)
    cluster = cluster or aks_client.connect(settings)
    cluster.pause.until(settings.deadline_seconds)
    name = aks_pool.name(settings.run)
    if not _delete(cluster, name, settings.run):
        return "nothing to release: this run has no node pool"
    return f"deleted node pool {name}"


def list_orphans(cluster_ref: ClusterRef, cluster: Cluster | None = None) -> list[OrphanedNodes]:
    """Return the existing pools that runs created.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(cluster_ref)
    return [pool for pool in map(aks_pool.to_orphan, cluster.pools()) if pool.run]


def remove(cluster_ref: ClusterRef, orphan: OrphanedNodes, cluster: Cluster | None = None) -> None:
    """Delete an orphaned pool, and wait until it is deleted.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(cluster_ref)
    cluster.pause.until(REMOVAL_SECONDS)
    _delete(cluster, orphan.name, orphan.run)


def is_same_cluster(cluster_ref: ClusterRef, host: str, cluster: Cluster | None = None) -> bool:
    """Return True if ``host``, the server of a kubeconfig, is the API server of the pools' cluster.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(cluster_ref)
    return host.lower() in cluster.hosts()


def _ensure_pool(cluster: Cluster, settings: Settings) -> AgentPool:
    """Return the ready pool of the run: an existing one, or one created from the first available option."""
    name = aks_pool.name(settings.run)
    options = nodes.node_options(settings)
    unavailable: list[aks_capacity.Unavailable] = []
    existing = _wait_until_settled(cluster, name, settings.run)
    if existing is not None and aks_pool.state(existing) == aks_pool.DONE:
        return existing
    if existing is not None:
        failed, failure = aks_pool.to_option(existing), _failure(existing)
        print(f"the pool of an earlier attempt failed: {failed}: {failure}", flush=True)
        if reason := aks_errors.capacity(failure):
            options = [option for option in options if option != failed]
            unavailable.append((failed, reason))
        _delete(cluster, name, settings.run)
    location, system_pool = cluster.location_and_system_pool()
    options, not_offered = aks_capacity.split(cluster, settings, location, options)
    for option in options:
        print(f"creating node pool {name}: {settings.count} x {option}; this takes 5 to 11 minutes", flush=True)
        try:
            return _create(cluster, name, settings, aks_pool.body(settings, option, system_pool, cluster.now()))
        except InsufficientCapacity as error:
            print(f"unavailable: {option}: {error.message}", flush=True)
            unavailable.append((option, aks_errors.capacity(error.message)))
            _delete(cluster, name, settings.run)
    raise nodes.no_option_available(settings, unavailable + not_offered, QUOTA_HELP)


def _create(cluster: Cluster, name: str, settings: Settings, body: AgentPool) -> AgentPool:
    """Create a pool and return it when it is ready.

    Raises:
        InsufficientCapacity: quota or capacity is missing.
        StepError: it failed for another reason.
    """
    cluster.create(name, body)
    pool = _wait_until_settled(cluster, name, settings.run)
    if pool is None:
        raise StepError(f"node pool {name} was deleted during its creation", "the step is retried")
    if aks_pool.state(pool) == aks_pool.DONE:
        return pool
    failure = _failure(pool)
    raise (InsufficientCapacity if aks_errors.capacity(failure) else StepError)(f"node pool {name} failed: {failure}")


def _wait_until_settled(cluster: Cluster, name: str, run: str) -> AgentPool | None:
    """Return the pool once no operation is in progress; None if it does not exist (any more)."""
    last_state = ""
    while (pool := _get_own_pool(cluster, name, run)) is not None:
        state = aks_pool.state(pool)
        if state == aks_pool.DONE or state in aks_pool.FAILED:
            return pool
        if state != last_state:
            print(f"node pool {name}: {state}", flush=True)
            last_state = state
        cluster.pause(aks_client.POLL_SECONDS)
    return None


def _get_own_pool(cluster: Cluster, name: str, run: str) -> AgentPool | None:
    """Return the pool of a run; None if it does not exist.

    Raises:
        BadInput: the pool of this name does not have the run's tag.
    """
    pool = cluster.pool(name)
    if pool is not None and not aks_pool.is_of(pool, run):
        raise BadInput(f"node pool {name} exists and belongs to another run", f"check its tag {aks_pool.RUN}")
    return pool


def _failure(pool: AgentPool) -> str:
    error = pool.status.provisioning_error if pool.status else None
    return aks_errors.format_error(error) or f"{aks_pool.state(pool)}, without a reason from Azure"


def _delete(cluster: Cluster, name: str, run: str) -> bool:
    """Delete a pool of a run and wait until it is deleted; return True if it existed."""
    existed = False
    while (pool := _get_own_pool(cluster, name, run)) is not None:
        existed = True
        if aks_pool.state(pool) == aks_pool.DELETING:
            cluster.pause(aks_client.POLL_SECONDS)
        else:
            print(f"deleting node pool {name}", flush=True)
            cluster.delete(pool)
    return existed
