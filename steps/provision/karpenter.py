"""Nodes of Karpenter, or of another reader of NodeClaims (KAITO's gpu-provisioner): one set for each run.

NodeClaims bring the nodes before a pod waits for them, so that a lack of capacity is known now and told in words; each
kind of node is tried in its turn. NodePools of the same run stand behind them: when a spot node is taken back,
Karpenter brings another for the pod that waits, heaviest pool first. A NodePool alone would make nothing now, and one
with ``replicas`` (an alpha feature) retries an unavailable instance type forever.

Names come from the run's uid, so a step that was killed finds what it made, and nothing is made twice.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import EVENTS, NODE_CLAIMS, NODE_POOLS, NODES, Kind
from steps.kubernetes.errors import AlreadyExists, Conflict, KindNotInstalled
from steps.provision import aks_errors, karpenter_objects
from steps.provision.karpenter_objects import Document, claim_name, condition, is_ready, node_class
from steps.provision.node_providers import RUN_LABEL
from steps.provision.nodes import NodeOption, OrphanedNodes, allocatable, node_options
from steps.provision.settings import GPU, ClusterRef, ReleaseSettings, Result, Settings
from steps.runtime.deadline import Deadline, DeadlineExceeded
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient

POLL_SECONDS = 10
NO_CAPACITY_EVENT = "InsufficientCapacityError"
UNAVAILABLE = "all requested instance types were unavailable during launch"
"""Karpenter's reason, for every cloud."""
CAPACITY_HELP = "write other sizes under pipeline.nodes.fallbackInstanceTypes, other zones, or ask for quota"
EVENTS_NAMESPACE = "default"
"""Namespace of events about cluster-scoped objects."""


@dataclass
class Karpenter:
    """The cluster that Karpenter runs in, and how to wait for it."""

    client: KubernetesClient
    pause: Deadline = field(default_factory=Deadline)
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)


def provision(settings: Settings, karpenter: Karpenter | None = None) -> Result:
    """Make the nodes of a run, of the first kind that can be had, or find them again, and wait until they have GPUs.

    Raises:
        InsufficientCapacity: no kind that would do can be had; says why of each.
        BadInput: the cluster does not let us in, has no Karpenter, or refuses what is asked for.
        StepError: it was not done in time; a retry of the step continues.
    """
    _check(settings)
    karpenter = karpenter or Karpenter(kubernetes_client.connect())
    karpenter.pause.until(settings.deadline_seconds)
    for pool in karpenter_objects.pools(settings, karpenter.now()):
        _create(karpenter, NODE_POOLS, pool, settings.run)
    choice, nodes = _provision_first_available(karpenter, settings)
    return Result("cuda", nodes, f"{', '.join(nodes)}: {settings.count} x {choice}, for this run alone")


def release(run: ReleaseSettings, karpenter: Karpenter | None = None) -> str:
    """Delete the NodePools and NodeClaims of a run, and wait until they are gone with their nodes.

    Raises:
        StepError: as ``provision``.
    """
    if not run.run:
        raise BadInput("which run's nodes? --run is empty")
    karpenter = karpenter or Karpenter(kubernetes_client.connect())
    karpenter.pause.until(run.deadline_seconds)
    gone = _delete(karpenter, run.run)
    return f"deleted {', '.join(gone)} and their nodes" if gone else "nothing to release: this run has no nodes"


def list_orphans(place: ClusterRef, karpenter: Karpenter | None = None) -> list[OrphanedNodes]:
    """Return the existing nodes created by runs, one entry for each run.

    Raises:
        StepError: as ``provision``.
    """
    client = (karpenter or Karpenter(kubernetes_client.connect())).client
    return karpenter_objects.list_orphans([*_objects(client, NODE_POOLS), *_objects(client, NODE_CLAIMS)])


def remove(place: ClusterRef, found: OrphanedNodes, karpenter: Karpenter | None = None) -> None:
    """Delete what a run has left, and wait until it is gone.

    Raises:
        StepError: as ``provision``.
    """
    _delete(karpenter or Karpenter(kubernetes_client.connect()), found.run)


def is_same_cluster(place: ClusterRef, host: str) -> bool:
    """Return True: Karpenter's nodes are in the cluster of the kubeconfig."""
    return True


def _check(settings: Settings) -> None:
    missing = [
        flag for flag, given in (("--run", settings.run), ("--instance-type", settings.instance_type)) if not given
    ]
    if missing:
        raise BadInput(f"nodes need {' and '.join(missing)}", "resource.instanceType of the Workspace says the size")
    if settings.count >= karpenter_objects.MAX_NODES:
        raise BadInput(f"{settings.count} machines for one run", f"at most {karpenter_objects.MAX_NODES - 1}")
    kind, _, facts = node_class(settings.node_class)
    if settings.spot and not facts.pools:
        raise BadInput(f"gpu-provisioner ({kind}) makes no spot nodes", "nodes.spot: false, or an AKSNodeClass")


def _provision_first_available(karpenter: Karpenter, settings: Settings) -> tuple[NodeOption, list[str]]:
    """The kind of node that could be had, and the names of its nodes."""
    left = _not_tried(karpenter, settings)
    refused = []
    for choice in left:
        for number in range(settings.count):
            body = karpenter_objects.claim(settings, choice, number, karpenter.now())
            _create(karpenter, NODE_CLAIMS, body, settings.run)
        try:
            return choice, _ready(karpenter, settings, choice)
        except InsufficientCapacity as error:
            print(f"unavailable: {choice}: {error.message}", flush=True)
            refused.append((choice, error.message))
            _delete(karpenter, settings.run, [NODE_CLAIMS])
    lines = "".join(f"\n  {choice}: {why}" for choice, why in refused)
    raise InsufficientCapacity(
        f"no GPU nodes can be had for {settings.count} x {settings.instance_type}:{lines}", CAPACITY_HELP
    )


def _not_tried(karpenter: Karpenter, settings: Settings) -> list[NodeOption]:
    """Kinds to try: from that of the claims that an earlier try of this step has left, else all."""
    found = _objects(karpenter.client, NODE_CLAIMS, settings.run)
    # Those that Karpenter made itself, for the pools, have no such annotation.
    words = {(claim["metadata"].get("annotations") or {}).get(karpenter_objects.CHOICE) for claim in found}
    options = node_options(settings)
    for place, choice in enumerate(options):
        if str(choice) in words and not any(claim["metadata"].get("deletionTimestamp") for claim in found):
            return options[place:]
    if found:
        _delete(karpenter, settings.run, [NODE_CLAIMS])
    return options


def _create(karpenter: Karpenter, kind: Kind, body: Document, run: str) -> None:
    """Create an object of this run, unless it is there."""
    name = body["metadata"]["name"]
    try:
        karpenter.client.create(kind, body)
        print(f"created {kind.plural} {name}", flush=True)
    except AlreadyExists:
        there = karpenter.client.get(kind, name) or {"metadata": {}}
        if (there["metadata"].get("labels") or {}).get(RUN_LABEL) not in (run, None):
            raise BadInput(
                f"{kind.plural} {name} is there and not of this run", f"see its label {RUN_LABEL}"
            ) from None


def _ready(karpenter: Karpenter, settings: Settings, choice: NodeOption) -> list[str]:
    """Names of the nodes, once all are there with their GPUs.

    Raises:
        InsufficientCapacity: Karpenter has given up on one, for lack of capacity or quota.
        StepError: it has for another reason, or it was not done in time.
    """
    names = [claim_name(settings.run, number) for number in range(settings.count)]
    uids: dict[str, str] = {}
    last_state = ""
    while True:
        found = {claim["metadata"]["name"]: claim for claim in _objects(karpenter.client, NODE_CLAIMS, settings.run)}
        uids |= {name: claim["metadata"]["uid"] for name, claim in found.items()}
        for name in names:
            if name not in found or found[name]["metadata"].get("deletionTimestamp"):
                raise _given_up(karpenter, name, uids.get(name, ""))
            _refuse_if_unavailable(found[name])
        nodes, state = _nodes(karpenter, settings, [found[name] for name in names])
        if nodes:
            return nodes
        if state != last_state:
            print(f"{choice}: {state}", flush=True)
            last_state = state
        try:
            karpenter.pause(POLL_SECONDS)
        except DeadlineExceeded as error:
            raise StepError(f"{choice}: {state} ({error.message})", error.fix) from None


def _nodes(karpenter: Karpenter, settings: Settings, claims: Sequence[Document]) -> tuple[list[str], str]:
    """Names of the nodes of all claims when they can be used; else none, and what is waited for."""
    for claim in claims:
        if not is_ready(claim):
            return [], _waiting(claim)
    names = {str((claim.get("status") or {}).get("nodeName")) for claim in claims}
    selected = karpenter.client.list(NODES, labels=f"{RUN_LABEL}={settings.run}")
    there = {node["metadata"]["name"]: node for node in selected if node["metadata"]["name"] in names}
    for name in sorted(names):
        gpus = allocatable(there.get(name, {}))
        if gpus < settings.gpus:
            what = f"node {name} is there, but offers {gpus} of {settings.gpus} {GPU}"
            return [], f"{what}: NVIDIA's device plugin has to be on it, and to tolerate its taint sku=gpu:NoSchedule"
    return sorted(names), ""


def _waiting(claim: Document) -> str:
    name = claim["metadata"]["name"]
    for kind, what in (
        ("Launched", "no machine yet"),
        ("Registered", "the machine has not joined the cluster yet"),
        ("Initialized", "the node is not ready yet"),
    ):
        found = condition(claim, kind)
        if found.get("status") != "True":
            message = str(found.get("message") or "")
            return f"NodeClaim {name}: {what}{f' ({message})' if message else ''}"
    return f"NodeClaim {name}: not ready yet"


def _refuse_if_unavailable(claim: Document) -> None:
    launched = condition(claim, "Launched")
    message = str(launched.get("message") or "")
    if launched.get("status") != "True" and (why := _capacity(message)):
        raise InsufficientCapacity(why)


def _given_up(karpenter: Karpenter, name: str, uid: str) -> StepError:
    """Return why a NodeClaim of the run was deleted."""
    about = f"involvedObject.kind=NodeClaim,involvedObject.name={name}"
    events = karpenter.client.list(EVENTS, EVENTS_NAMESPACE, fields=about)
    # A claim of the kind that was tried before had the same name.
    warnings = [
        event
        for event in events
        if event.get("type") == "Warning" and (not uid or event["involvedObject"].get("uid") == uid)
    ]
    for event in reversed(warnings):
        message = str(event.get("message") or "").removeprefix(f"NodeClaim {name} event: ")
        if event.get("reason") == NO_CAPACITY_EVENT or _capacity(message):
            return InsufficientCapacity(_capacity(message) or message)
    words = "; ".join(str(event.get("message")) for event in warnings) or "and no event says why"
    return StepError(f"NodeClaim {name} was deleted before its node was ready: {words}", "the step is retried")


def _capacity(message: str) -> str:
    """Return why quota or capacity is missing; empty if the message is about something else."""
    if UNAVAILABLE in message:
        return f"the region has no machine of this size free, or no quota is left ({message})"
    why = aks_errors.capacity(message)
    return f"{why} ({message})" if why else ""


def _objects(client: KubernetesClient, kind: Kind, run: str = "") -> list[Document]:
    """Objects of a run, or of all runs; none where the cluster does not know NodePools, as with gpu-provisioner."""
    try:
        return client.list(kind, labels=f"{RUN_LABEL}={run}" if run else RUN_LABEL)
    except KindNotInstalled:
        if kind == NODE_POOLS:
            return []
        raise


def _delete(karpenter: Karpenter, run: str, kinds: Sequence[Kind] = (NODE_POOLS, NODE_CLAIMS)) -> list[str]:
    """Delete all objects of a run and wait; the NodePools first, so that Karpenter replaces no node."""
    deleted: list[str] = []
    while left := [(kind, document) for kind in kinds for document in _objects(karpenter.client, kind, run)]:
        for kind, document in left:
            metadata = document["metadata"]
            shown = f"{kind.plural} {metadata['name']}"
            if metadata.get("deletionTimestamp") or shown in deleted:
                continue
            print(f"deleting {shown}", flush=True)
            try:
                karpenter.client.delete(kind, metadata["name"], uid=metadata["uid"])
                deleted.append(shown)
            except Conflict:
                continue  # It is another one by now: looked at in the next round.
        karpenter.pause(POLL_SECONDS)
    return deleted
