"""Nodes for a run by Karpenter, or by KAITO's gpu-provisioner, which also reads NodeClaims.

NodeClaims create nodes before a pod is pending, so that the step can report missing capacity and try the next option.
In addition, the run has NodePools: when a spot node is reclaimed, Karpenter creates another one for the pending pod,
from the pool with the highest weight. A NodePool without pending pods creates nothing, and one with ``replicas`` (an
alpha feature) retries an unavailable instance type forever.

Names are derived from the run's uid, so a restarted step finds its objects and creates nothing twice.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import EVENTS, NODE_CLAIMS, NODE_POOLS, NODES, Kind
from steps.kubernetes.errors import AlreadyExists, Conflict, KindNotInstalled
from steps.provision import aks_errors, karpenter_objects, nodes
from steps.provision.karpenter_objects import Document, claim_name, condition, is_ready, node_class
from steps.provision.node_providers import RUN_LABEL
from steps.provision.nodes import NodeOption, OrphanedNodes
from steps.provision.settings import GPU, ClusterRef, ReleaseSettings, Result, Settings
from steps.runtime.deadline import Deadline, DeadlineExceeded
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient

POLL_SECONDS = 10
NO_CAPACITY_EVENT = "InsufficientCapacityError"
UNAVAILABLE = "all requested instance types were unavailable during launch"
"""Karpenter's message, the same for every cloud."""
UNKNOWN_SIZE = re.compile(r"instance type not found|no instance types? (satisf|match)")
"""Messages for an instance type that the region does not offer: Karpenter retries for minutes before it gives up."""
CONSEQUENCES = ("TerminationGracePeriodExpiring",)
"""Reasons of warnings about the deletion of a NodeClaim, which do not name its cause."""
CAPACITY_HELP = (
    "add instance types to pipeline.nodes.fallbackInstanceTypes or zones to pipeline.nodes.zones, or request quota"
)
EVENTS_NAMESPACE = "default"
"""Namespace of events about cluster-scoped objects."""


@dataclass
class Karpenter:
    """Client of the cluster that Karpenter runs in, and the clock."""

    client: KubernetesClient
    pause: Deadline = field(default_factory=Deadline)
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)


def provision(settings: Settings, karpenter: Karpenter | None = None) -> Result:
    """Create the nodes of a run from the first available option, or find them, and wait until they have GPUs.

    Raises:
        InsufficientCapacity: no option is available, with the reason for each.
        BadInput: the cluster rejects the credentials or the request, or has no Karpenter.
        StepError: it was not done in time; a retry of the step continues.
    """
    _check_settings(settings)
    karpenter = karpenter or Karpenter(kubernetes_client.connect())
    karpenter.pause.until(settings.deadline_seconds)
    for pool in karpenter_objects.pools(settings, karpenter.now()):
        _create(karpenter, NODE_POOLS, pool, settings.run)
    option, names = _provision_first_available(karpenter, settings)
    return Result("cuda", names, f"{', '.join(names)}: {settings.count} x {option}, only for this run")


def release(settings: ReleaseSettings, karpenter: Karpenter | None = None) -> str:
    """Delete the NodePools and NodeClaims of a run, and wait until they and their nodes are deleted.

    Raises:
        StepError: as ``provision``.
    """
    nodes.check_run(settings)
    karpenter = karpenter or Karpenter(kubernetes_client.connect())
    karpenter.pause.until(settings.deadline_seconds)
    deleted = _delete(karpenter, settings.run)
    return f"deleted {', '.join(deleted)} and their nodes" if deleted else "nothing to release: this run has no nodes"


def list_orphans(cluster_ref: ClusterRef, karpenter: Karpenter | None = None) -> list[OrphanedNodes]:
    """Return the existing nodes that runs created, one entry for each run.

    Raises:
        StepError: as ``provision``.
    """
    client = (karpenter or Karpenter(kubernetes_client.connect())).client
    return karpenter_objects.list_orphans([*_list_objects(client, NODE_POOLS), *_list_objects(client, NODE_CLAIMS)])


def remove(cluster_ref: ClusterRef, orphan: OrphanedNodes, karpenter: Karpenter | None = None) -> None:
    """Delete orphaned nodes, and wait until they are deleted.

    Raises:
        StepError: as ``provision``.
    """
    _delete(karpenter or Karpenter(kubernetes_client.connect()), orphan.run)


def is_same_cluster(cluster_ref: ClusterRef, host: str) -> bool:
    """Return True: Karpenter's nodes are in the cluster of the kubeconfig."""
    return True


def _check_settings(settings: Settings) -> None:
    nodes.check_required(settings)
    if settings.count >= karpenter_objects.MAX_NODES:
        limit = karpenter_objects.MAX_NODES - 1
        raise BadInput(f"--count {settings.count} exceeds the maximum ({limit})", "set a lower resource.count")
    kind, _, facts = node_class(settings.node_class)
    if settings.spot and not facts.pools:
        raise BadInput(
            f"gpu-provisioner ({kind}) creates no spot nodes", "set nodes.spot: false, or use an AKSNodeClass"
        )


def _provision_first_available(karpenter: Karpenter, settings: Settings) -> tuple[NodeOption, list[str]]:
    """Return the first available option and the names of its nodes."""
    unavailable = []
    for option in _remaining_options(karpenter, settings):
        for number in range(settings.count):
            body = karpenter_objects.claim(settings, option, number, karpenter.now())
            _create(karpenter, NODE_CLAIMS, body, settings.run)
        try:
            return option, _wait_until_ready(karpenter, settings, option)
        except InsufficientCapacity as error:
            print(f"unavailable: {option}: {error.message}", flush=True)
            unavailable.append((option, error.message))
            _delete(karpenter, settings.run, [NODE_CLAIMS])
    raise nodes.no_option_available(settings, unavailable, CAPACITY_HELP)


def _remaining_options(karpenter: Karpenter, settings: Settings) -> list[NodeOption]:
    """Return the options to try, starting with that of the claims of an earlier attempt, if there are any."""
    claims = _list_objects(karpenter.client, NODE_CLAIMS, settings.run)
    # Claims that Karpenter created for the NodePools have no such annotation.
    claimed = {(claim["metadata"].get("annotations") or {}).get(karpenter_objects.CHOICE) for claim in claims}
    options = nodes.node_options(settings)
    for index, option in enumerate(options):
        if str(option) in claimed and not any(claim["metadata"].get("deletionTimestamp") for claim in claims):
            return options[index:]
    if claims:
        _delete(karpenter, settings.run, [NODE_CLAIMS])
    return options


def _create(karpenter: Karpenter, kind: Kind, body: Document, run: str) -> None:
    """Create an object of this run, unless it exists.

    Raises:
        BadInput: the object of this name belongs to another run.
    """
    name = body["metadata"]["name"]
    try:
        karpenter.client.create(kind, body)
        print(f"created {kind.plural} {name}", flush=True)
    except AlreadyExists:
        existing = karpenter.client.get(kind, name) or {"metadata": {}}
        if (existing["metadata"].get("labels") or {}).get(RUN_LABEL) not in (run, None):
            message = f"{kind.plural} {name} exists and belongs to another run"
            raise BadInput(message, f"check its label {RUN_LABEL}") from None


def _wait_until_ready(karpenter: Karpenter, settings: Settings, option: NodeOption) -> list[str]:
    """Return the names of the nodes once all have their GPUs.

    Raises:
        InsufficientCapacity: capacity or quota is missing for one of them.
        StepError: Karpenter deleted a NodeClaim for another reason, or it was not done in time.
    """
    names = [claim_name(settings.run, number) for number in range(settings.count)]
    last: dict[str, Document] = {}
    last_state = ""
    while True:
        claims = {
            claim["metadata"]["name"]: claim for claim in _list_objects(karpenter.client, NODE_CLAIMS, settings.run)
        }
        last |= claims
        for name in names:
            if name not in claims or claims[name]["metadata"].get("deletionTimestamp"):
                raise _deletion_error(karpenter, name, last.get(name, {}))
            _check_launch(claims[name])
        ready, state = _ready_nodes(karpenter, settings, [claims[name] for name in names])
        if ready:
            return ready
        if state != last_state:
            print(f"{option}: {state}", flush=True)
            last_state = state
        try:
            karpenter.pause(POLL_SECONDS)
        except DeadlineExceeded as error:
            raise StepError(f"{option}: {state} ({error.message})", error.fix) from None


def _ready_nodes(karpenter: Karpenter, settings: Settings, claims: Sequence[Document]) -> tuple[list[str], str]:
    """Return the names of the nodes if all are ready with their GPUs; otherwise none, and the missing state."""
    for claim in claims:
        if not is_ready(claim):
            return [], _pending_state(claim)
    names = {str((claim.get("status") or {}).get("nodeName")) for claim in claims}
    selected = karpenter.client.list(NODES, labels=f"{RUN_LABEL}={settings.run}")
    existing = {node["metadata"]["name"]: node for node in selected if node["metadata"]["name"] in names}
    for name in sorted(names):
        gpus = nodes.allocatable(existing.get(name, {}))
        if gpus < settings.gpus:
            state = f"node {name} has {gpus} of {settings.gpus} allocatable {GPU}"
            return [], f"{state}: NVIDIA's device plugin must run on it and tolerate its taint sku=gpu:NoSchedule"
    return sorted(names), ""


def _pending_state(claim: Document) -> str:
    """Return the first condition of a NodeClaim that is not met, with its message."""
    name = claim["metadata"]["name"]
    for kind, state in (
        ("Launched", "no machine is allocated yet"),
        ("Registered", "the machine has not joined the cluster yet"),
        ("Initialized", "the node is not ready yet"),
    ):
        status = condition(claim, kind)
        if status.get("status") != "True":
            message = str(status.get("message") or "")
            return f"NodeClaim {name}: {state}{f' ({message})' if message else ''}"
    return f"NodeClaim {name}: not ready yet"


def _check_launch(claim: Document) -> None:
    """Raise ``InsufficientCapacity`` if a NodeClaim cannot be launched for missing capacity or quota."""
    launched = condition(claim, "Launched")
    message = str(launched.get("message") or "")
    if launched.get("status") != "True" and (reason := _capacity(message)):
        raise InsufficientCapacity(reason)


def _deletion_error(karpenter: Karpenter, name: str, claim: Document) -> StepError:
    """Return the error for a NodeClaim that Karpenter deleted, with the reason from its events and its last state.

    Args:
        karpenter: The cluster.
        name: Name of the NodeClaim.
        claim: The NodeClaim as it was last seen; empty if never.
    """
    selector = f"involvedObject.kind=NodeClaim,involvedObject.name={name}"
    events = karpenter.client.list(EVENTS, EVENTS_NAMESPACE, fields=selector)
    uid = claim.get("metadata", {}).get("uid", "")
    # The claim of the previous option had the same name.
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning"
        and event.get("reason") not in CONSEQUENCES
        and (not uid or event["involvedObject"].get("uid") == uid)
    ]
    for event in reversed(warnings):
        message = str(event.get("message") or "").removeprefix(f"NodeClaim {name} event: ")
        if event.get("reason") == NO_CAPACITY_EVENT or _capacity(message):
            return InsufficientCapacity(_capacity(message) or message)
    last_state = [_pending_state(claim)] if claim and not is_ready(claim) else []
    reason = "; ".join([*(str(event.get("message")) for event in warnings), *last_state]) or "no event has a reason"
    return StepError(f"NodeClaim {name} was deleted before its node was ready: {reason}", "the step is retried")


def _capacity(message: str) -> str:
    """Return why quota or capacity is missing; empty if the message is about something else."""
    if UNAVAILABLE in message:
        return f"the region is out of capacity for this instance type, or the quota is used up ({message})"
    if UNKNOWN_SIZE.search(message):
        return f"the region does not offer this instance type ({message})"
    reason = aks_errors.capacity(message)
    return f"{reason} ({message})" if reason else ""


def _list_objects(client: KubernetesClient, kind: Kind, run: str = "") -> list[Document]:
    """Return the objects of a run, or of all runs; no NodePools if they are not installed (gpu-provisioner)."""
    try:
        return client.list(kind, labels=f"{RUN_LABEL}={run}" if run else RUN_LABEL)
    except KindNotInstalled:
        if kind == NODE_POOLS:
            return []
        raise


def _delete(karpenter: Karpenter, run: str, kinds: Sequence[Kind] = (NODE_POOLS, NODE_CLAIMS)) -> list[str]:
    """Delete all objects of a run and wait; NodePools first, so that Karpenter replaces no node.

    Returns:
        The deleted objects, for the log.
    """
    deleted: list[str] = []
    while remaining := [(kind, document) for kind in kinds for document in _list_objects(karpenter.client, kind, run)]:
        for kind, document in remaining:
            metadata = document["metadata"]
            label = f"{kind.plural} {metadata['name']}"
            if metadata.get("deletionTimestamp") or label in deleted:
                continue
            print(f"deleting {label}", flush=True)
            try:
                karpenter.client.delete(kind, metadata["name"], uid=metadata["uid"])
                deleted.append(label)
            except Conflict:
                continue  # replaced by another object, which the next iteration deletes
        karpenter.pause(POLL_SECONDS)
    return deleted
