"""AKS node pools: one for each run, created for it and deleted when it ends.

The pool's name comes from the run's uid and its tags name the run, so a step that was killed finds it again, however
far it had come; a pool with the tags of another run is never touched.
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
QUOTA_HELP = "ask for quota (aka.ms/azquotaincrease), or write other sizes under pipeline.nodes.fallbackInstanceTypes"


def provision(settings: Settings, cluster: Cluster | None = None) -> Result:
    """Make the pool of a run, of the first kind that can be had, or find it again and wait until it is ready.

    Raises:
        InsufficientCapacity: no kind that would do can be had; says why of each.
        BadInput: Azure does not let us in, or refuses what is asked for.
        StepError: Azure failed, or was not done in time; a retry of the step continues.
    """
    if not settings.run or not settings.instance_type:
        missing = " and ".join(flag for flag, given in _needed(settings) if not given)
        raise BadInput(f"a node pool needs {missing}", "resource.instanceType of the Workspace says the size")
    cluster = cluster or aks_client.connect(settings)
    cluster.pause.until(settings.deadline_seconds)
    pool = _ensure_pool(cluster, settings)
    choice = aks_pool.choice_of(pool)
    # Found again, it may have fewer nodes: the autoscaler takes back what is idle, and brings it when a pod needs it.
    there = aks_nodes.wait_for_gpus(settings, min(settings.count, pool.count or 0), cluster.pause)
    summary = f"node pool {pool.name}: {settings.count} x {choice}, for this run alone"
    return Result("cuda", there or [str(pool.name)], summary)


def release(run: ReleaseSettings, cluster: Cluster | None = None) -> str:
    """Delete the node pool of a run, and wait until it is gone; return a summary.

    Raises:
        StepError: as ``provision``.
    """
    if not run.run:
        raise BadInput("which run's node pool? --run is empty")
    cluster = cluster or aks_client.connect(run)
    cluster.pause.until(run.deadline_seconds)
    name = aks_pool.name(run.run)
    if not _delete(cluster, name, run.run):
        return "nothing to release: this run has no node pool"
    return f"deleted node pool {name}"


def list_orphans(place: ClusterRef, cluster: Cluster | None = None) -> list[OrphanedNodes]:
    """Every pool that a run has made and that is still there.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(place)
    return [pool for pool in map(aks_pool.leftover, cluster.pools()) if pool.run]


def remove(place: ClusterRef, found: OrphanedNodes, cluster: Cluster | None = None) -> None:
    """Delete a pool that a run has left, and wait until it is gone.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(place)
    cluster.pause.until(REMOVAL_SECONDS)
    _delete(cluster, found.name, found.run)


def is_same_cluster(place: ClusterRef, host: str, cluster: Cluster | None = None) -> bool:
    """Return True if a kubeconfig with the server ``host`` leads to the cluster of the pools.

    Raises:
        StepError: as ``provision``.
    """
    cluster = cluster or aks_client.connect(place)
    return host.lower() in cluster.hosts()


def _needed(settings: Settings) -> list[tuple[str, str]]:
    return [("--run", settings.run), ("--instance-type", settings.instance_type)]


def _ensure_pool(cluster: Cluster, settings: Settings) -> AgentPool:
    """The pool of the run, ready: found, waited for, or made of the first kind that can be had."""
    name = aks_pool.name(settings.run)
    node_options = nodes.node_options(settings)
    refused: list[aks_capacity.Refusal] = []
    earlier = _ended(cluster, name, settings.run)
    if earlier is not None and aks_pool.state(earlier) == aks_pool.DONE:
        return earlier
    if earlier is not None:
        failed, why = aks_pool.choice_of(earlier), _failure(earlier)
        print(f"{failed} failed before: {why}", flush=True)
        if no_capacity := aks_errors.capacity(why):
            node_options = [choice for choice in node_options if choice != failed]
            refused.append((failed, no_capacity))
        _delete(cluster, name, settings.run)
    location, system_pool = cluster.location_and_system_pool()
    node_options, not_offered = aks_capacity.split(cluster, settings, location, node_options)
    for choice in node_options:
        print(f"creating node pool {name}: {settings.count} x {choice}; this takes 5 to 11 minutes", flush=True)
        try:
            return _create(cluster, name, settings, aks_pool.body(settings, choice, system_pool, cluster.now()))
        except InsufficientCapacity as error:
            print(f"unavailable: {choice}: {error.message}", flush=True)
            refused.append((choice, aks_errors.capacity(error.message)))
            _delete(cluster, name, settings.run)
    raise _none(settings, refused + not_offered)


def _create(cluster: Cluster, name: str, settings: Settings, body: AgentPool) -> AgentPool:
    """A new pool, ready.

    Raises:
        InsufficientCapacity: there is no quota or no capacity for it.
        StepError: it failed for another reason.
    """
    cluster.create(name, body)
    pool = _ended(cluster, name, settings.run)
    if pool is None:
        raise StepError(f"node pool {name} was deleted while it was made", "the step is tried again")
    if aks_pool.state(pool) == aks_pool.DONE:
        return pool
    why = _failure(pool)
    raise (InsufficientCapacity if aks_errors.capacity(why) else StepError)(f"node pool {name} failed: {why}")


def _ended(cluster: Cluster, name: str, run: str) -> AgentPool | None:
    """Return the pool once no operation is in progress; None if it does not exist (any more)."""
    last_state = ""
    while (pool := _own(cluster, name, run)) is not None:
        state = aks_pool.state(pool)
        if state == aks_pool.DONE or state in aks_pool.FAILED:
            return pool
        if state != last_state:
            print(f"node pool {name} is there: {state}", flush=True)
            last_state = state
        cluster.pause(aks_client.POLL_SECONDS)
    return None


def _own(cluster: Cluster, name: str, run: str) -> AgentPool | None:
    """The pool of a run.

    Raises:
        BadInput: a pool of this name has not the run's tag.
    """
    pool = cluster.pool(name)
    if pool is not None and not aks_pool.is_of(pool, run):
        raise BadInput(
            f"node pool {name} is there and not of this run", f"see whose it is; tag {aks_pool.RUN} names a run"
        )
    return pool


def _failure(pool: AgentPool) -> str:
    error = pool.status.provisioning_error if pool.status else None
    return aks_errors.text(error) or f"{aks_pool.state(pool)}, and Azure does not say why"


def _delete(cluster: Cluster, name: str, run: str) -> bool:
    """Delete a pool of a run and wait until it is gone; whether there was one."""
    found = False
    while (pool := _own(cluster, name, run)) is not None:
        found = True
        if aks_pool.state(pool) == aks_pool.DELETING:
            cluster.pause(aks_client.POLL_SECONDS)
        else:
            print(f"deleting node pool {name}", flush=True)
            cluster.delete(pool)
    return found


def _none(settings: Settings, refused: list[aks_capacity.Refusal]) -> InsufficientCapacity:
    lines = "".join(f"\n  {choice}: {why}" for choice, why in refused)
    return InsufficientCapacity(
        f"no GPU nodes can be had for {settings.count} x {settings.instance_type}:{lines}", QUOTA_HELP
    )
