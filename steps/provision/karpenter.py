"""Nodes by Karpenter, or by what reads its NodeClaims (KAITO's gpu-provisioner): made for one run, and given back.

NodeClaims bring the nodes before a pod waits for them, so that a lack of capacity is known now and told in words; each
kind of node is tried in its turn. NodePools of the same run stand behind them: when a spot node is taken back,
Karpenter brings another for the pod that waits, heaviest pool first. A NodePool alone would make nothing now, and one
with ``replicas`` (an alpha feature) tries a size that is not to be had without end.

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
from steps.provision.nodes import NodeOption, OrphanedNodes, node_options, offered
from steps.provision.settings import GPU, ClusterRef, ReleaseSettings, Result, Settings
from steps.runtime.deadline import Deadline, DeadlineExceeded
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient

POLL_SECONDS = 10
NO_CAPACITY_EVENT = "InsufficientCapacityError"
UNAVAILABLE = "all requested instance types were unavailable during launch"
"""How Karpenter says it, whatever the cloud."""
CAPACITY_HELP = "write other sizes under pipeline.nodes.fallbackInstanceTypes, other zones, or ask for quota"
EVENTS_NAMESPACE = "default"
"""Where the API server keeps events about objects without a namespace."""


@dataclass
class Karpenter:
    """The cluster that Karpenter runs in, and how to wait for it."""

    client: KubernetesClient
    pause: Deadline = field(default_factory=Deadline)
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)


def provision(wanted: Settings, karpenter: Karpenter | None = None) -> Result:
    """Make the nodes of a run, of the first kind that can be had, or find them again, and wait until they have GPUs.

    Raises:
        InsufficientCapacity: no kind that would do can be had; says why of each.
        BadInput: the cluster does not let us in, has no Karpenter, or refuses what is asked for.
        StepError: it was not done in time; tried again, the step goes on where it was.
    """
    _check(wanted)
    karpenter = karpenter or Karpenter(kubernetes_client.connect())
    karpenter.pause.until(wanted.deadline_seconds)
    for pool in karpenter_objects.pools(wanted, karpenter.now()):
        _made(karpenter, NODE_POOLS, pool, wanted.run)
    choice, nodes = _provision_first_available(karpenter, wanted)
    return Result("cuda", nodes, f"{', '.join(nodes)}: {wanted.count} x {choice}, for this run alone")


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
    return f"deleted {', '.join(gone)} and their nodes" if gone else "nothing to give back: this run has no nodes"


def list_orphans(place: ClusterRef, karpenter: Karpenter | None = None) -> list[OrphanedNodes]:
    """What runs have made and is still there, one entry a run.

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
    """Whether the cluster of a kubeconfig is the one the nodes are in: they are looked for by no other."""
    return True


def _check(wanted: Settings) -> None:
    missing = [flag for flag, given in (("--run", wanted.run), ("--instance-type", wanted.instance_type)) if not given]
    if missing:
        raise BadInput(f"nodes need {' and '.join(missing)}", "resource.instanceType of the Workspace says the size")
    if wanted.count >= karpenter_objects.MAX_NODES:
        raise BadInput(f"{wanted.count} machines for one run", f"at most {karpenter_objects.MAX_NODES - 1}")
    kind, _, facts = node_class(wanted.node_class)
    if wanted.spot and not facts.pools:
        raise BadInput(f"gpu-provisioner ({kind}) makes no spot nodes", "nodes.spot: false, or an AKSNodeClass")


def _provision_first_available(karpenter: Karpenter, wanted: Settings) -> tuple[NodeOption, list[str]]:
    """The kind of node that could be had, and the names of its nodes."""
    left = _not_tried(karpenter, wanted)
    refused = []
    for choice in left:
        for number in range(wanted.count):
            body = karpenter_objects.claim(wanted, choice, number, karpenter.now())
            _made(karpenter, NODE_CLAIMS, body, wanted.run)
        try:
            return choice, _ready(karpenter, wanted, choice)
        except InsufficientCapacity as error:
            print(f"not to be had: {choice}: {error.message}", flush=True)
            refused.append((choice, error.message))
            _delete(karpenter, wanted.run, [NODE_CLAIMS])
    lines = "".join(f"\n  {choice}: {why}" for choice, why in refused)
    raise InsufficientCapacity(
        f"no GPU nodes can be had for {wanted.count} x {wanted.instance_type}:{lines}", CAPACITY_HELP
    )


def _not_tried(karpenter: Karpenter, wanted: Settings) -> list[NodeOption]:
    """Kinds to try: from that of the claims that an earlier try of this step has left, else all."""
    found = _objects(karpenter.client, NODE_CLAIMS, wanted.run)
    # Those that Karpenter made itself, for the pools, have no such annotation.
    words = {(claim["metadata"].get("annotations") or {}).get(karpenter_objects.CHOICE) for claim in found}
    offered = node_options(wanted)
    for place, choice in enumerate(offered):
        if str(choice) in words and not any(claim["metadata"].get("deletionTimestamp") for claim in found):
            return offered[place:]
    if found:
        _delete(karpenter, wanted.run, [NODE_CLAIMS])
    return offered


def _made(karpenter: Karpenter, kind: Kind, body: Document, run: str) -> None:
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


def _ready(karpenter: Karpenter, wanted: Settings, choice: NodeOption) -> list[str]:
    """Names of the nodes, once all are there with their GPUs.

    Raises:
        InsufficientCapacity: Karpenter has given up on one, for lack of capacity or quota.
        StepError: it has for another reason, or it was not done in time.
    """
    names = [claim_name(wanted.run, number) for number in range(wanted.count)]
    uids: dict[str, str] = {}
    said = ""
    while True:
        found = {claim["metadata"]["name"]: claim for claim in _objects(karpenter.client, NODE_CLAIMS, wanted.run)}
        uids |= {name: claim["metadata"]["uid"] for name, claim in found.items()}
        for name in names:
            if name not in found or found[name]["metadata"].get("deletionTimestamp"):
                raise _given_up(karpenter, name, uids.get(name, ""))
            _refuse_if_unavailable(found[name])
        nodes, state = _nodes(karpenter, wanted, [found[name] for name in names])
        if nodes:
            return nodes
        if state != said:
            print(f"{choice}: {state}", flush=True)
            said = state
        try:
            karpenter.pause(POLL_SECONDS)
        except DeadlineExceeded as error:
            raise StepError(f"{choice}: {state} ({error.message})", error.fix) from None


def _nodes(karpenter: Karpenter, wanted: Settings, claims: Sequence[Document]) -> tuple[list[str], str]:
    """Names of the nodes of all claims when they can be used; else none, and what is waited for."""
    for claim in claims:
        if not is_ready(claim):
            return [], _waiting(claim)
    names = {str((claim.get("status") or {}).get("nodeName")) for claim in claims}
    selected = karpenter.client.list(NODES, labels=f"{RUN_LABEL}={wanted.run}")
    there = {node["metadata"]["name"]: node for node in selected if node["metadata"]["name"] in names}
    for name in sorted(names):
        gpus = offered(there.get(name, {}))
        if gpus < wanted.gpus:
            what = f"node {name} is there, but offers {gpus} of {wanted.gpus} {GPU}"
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
    """Why a NodeClaim that we want is gone, or going."""
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
    return StepError(f"NodeClaim {name} was deleted before its node was ready: {words}", "it is tried again")


def _capacity(message: str) -> str:
    """Why there is no capacity or quota, in words; empty where a message says nothing of the kind."""
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
    """Delete all of a run, the pools first, so that Karpenter brings nothing anew; wait until it is gone."""
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
