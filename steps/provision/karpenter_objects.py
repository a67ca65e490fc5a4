"""NodePools and NodeClaims of a run (karpenter.sh/v1).

``NodeClass`` has the differences of KAITO's gpu-provisioner: it ignores NodePools, creates no spot nodes, and requires
the size of the disk.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.provision.node_providers import RUN_LABEL
from steps.provision.nodes import TAINT, NodeOption, OrphanedNodes, format_timestamp, labels, parse_timestamp
from steps.provision.settings import GPU, Settings
from steps.runtime.errors import BadInput

Document = dict[str, Any]
API_VERSION = "karpenter.sh/v1"
WORKFLOW, WORKSPACE, NAMESPACE = "argotune.dev/workflow", "argotune.dev/workspace", "argotune.dev/namespace"
CREATED, LEASE, CHOICE = "argotune.dev/made", "argotune.dev/lease-until", "argotune.dev/option"
"""Annotations of the objects of a run."""
POOL_LABEL = "karpenter.sh/nodepool"
MAX_NODES = 100


@dataclass(frozen=True)
class NodeClass:
    """A kind of node class, and what its controller requires in addition to Karpenter's fields."""

    group: str
    pools: bool = True
    """Its controller creates nodes for NodePools when pods are pending."""
    pool: str = ""
    """Name of the NodePool that NodeClaims must refer to."""
    size_label: str = ""
    """A requirement in addition to ``node.kubernetes.io/instance-type``."""
    requests: dict[str, str] = field(default_factory=dict)


NODE_CLASSES = {
    "AKSNodeClass": NodeClass("karpenter.azure.com"),
    "EC2NodeClass": NodeClass("karpenter.k8s.aws"),
    "KaitoNodeClass": NodeClass(
        "kaito.sh",
        pools=False,
        pool="kaito",
        size_label="karpenter.azure.com/sku-name",
        # Size of the OS disk: KAITO's default.
        requests={"storage": "1024Gi"},
    ),
}
"""Node classes by kind; the first is the default."""


def node_class(value: str) -> tuple[str, str, NodeClass]:
    """Return kind, name and properties of a node class ``NAME``, ``KIND/NAME`` or ``KIND.GROUP/NAME``.

    Raises:
        BadInput: the group of another kind than ``NODE_CLASSES`` is missing.
    """
    kind_and_group, _, name = value.rpartition("/")
    kind, _, group = kind_and_group.partition(".")
    kind = kind or next(iter(NODE_CLASSES))
    known = NODE_CLASSES.get(kind)
    if known and group in ("", known.group) and name:
        return kind, name, known
    if not group or not name:
        kinds = ", ".join(f"{known}/NAME" for known in NODE_CLASSES)
        raise BadInput(
            f"--node-class {value}: the API group of this kind is unknown",
            f"use NAME, {kinds}, or KIND.GROUP/NAME for another kind",
        )
    return kind, name, NodeClass(group)


def claim_name(run: str, number: int) -> str:
    """Return the name of one node of a run; deterministic, so that it is never created twice.

    Eleven lowercase letters and digits, since gpu-provisioner creates an AKS node pool of this name.
    """
    return f"a{_digest(run)[:8]}{number:02d}"


def pool_name(run: str, number: int) -> str:
    """Return the name of one NodePool of a run."""
    return f"argotune-{_digest(run)[:10]}-{number}"


def claim(settings: Settings, option: NodeOption, number: int, now: datetime.datetime) -> Document:
    """Return the NodeClaim of one node."""
    _, _, facts = node_class(settings.node_class)
    metadata = _metadata(settings, claim_name(settings.run, number), now)
    metadata["annotations"] |= {CHOICE: str(option), "karpenter.sh/do-not-disrupt": "true"}
    pool = facts.pool or _pool_of(settings, option)
    metadata["labels"][POOL_LABEL] = pool
    spec = _node_spec(settings, option.size, [_capacity_type(option.spot)], [option.zone] if option.zone else [])
    if facts.pool:
        spec["requirements"].append(_is_in(POOL_LABEL, [pool]))
    return {"apiVersion": API_VERSION, "kind": "NodeClaim", "metadata": metadata, "spec": spec}


def pools(settings: Settings, now: datetime.datetime) -> list[Document]:
    """Return the NodePools of a run, best first, which replace reclaimed nodes up to the requested count.

    Empty if the node class has no NodePools.
    """
    if not node_class(settings.node_class)[2].pools:
        return []
    return [_pool(settings, number, size, spot, now) for number, (size, spot) in enumerate(_kinds(settings))]


def _pool(settings: Settings, number: int, size: str, spot: bool, now: datetime.datetime) -> Document:
    spec = {
        "template": {
            "metadata": {"labels": {**labels(settings)}},
            "spec": _node_spec(settings, size, [_capacity_type(spot)], settings.zones),
        },
        # Karpenter tries the pool with the highest weight first, and the next one if it has no capacity.
        "weight": max(100 - number, 1),
        "limits": {GPU: str(settings.count * _gpus(settings, size))},
        "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": "10m"},
    }
    metadata = _metadata(settings, pool_name(settings.run, number), now)
    return {"apiVersion": API_VERSION, "kind": "NodePool", "metadata": metadata, "spec": spec}


def _node_spec(settings: Settings, size: str, capacity_types: Sequence[str], zones: Sequence[str]) -> Document:
    kind, name, facts = node_class(settings.node_class)
    requirements = [
        _is_in("node.kubernetes.io/instance-type", [size]),
        _is_in("kubernetes.io/os", ["linux"]),
        *([_is_in(facts.size_label, [size])] if facts.size_label else []),
        *([_is_in("karpenter.sh/capacity-type", capacity_types)] if facts.pools else []),
        *([_is_in("topology.kubernetes.io/zone", zones)] if zones else []),
    ]
    spec = {
        "nodeClassRef": {"group": facts.group, "kind": kind, "name": name},
        "requirements": requirements,
        "taints": [TAINT],
        # Karpenter deletes the nodes of lost runs.
        "expireAfter": f"{settings.lease_seconds}s",
        "terminationGracePeriod": "30m",
    }
    return spec | ({"resources": {"requests": facts.requests}} if facts.requests else {})


def _metadata(settings: Settings, name: str, now: datetime.datetime) -> Document:
    lease = now + datetime.timedelta(seconds=settings.lease_seconds)
    annotations = {WORKFLOW: settings.workflow, WORKSPACE: settings.workspace, NAMESPACE: settings.namespace}
    annotations |= {CREATED: format_timestamp(now), LEASE: format_timestamp(lease)}
    return {"name": name, "labels": labels(settings), "annotations": annotations}


def list_orphans(objects: Sequence[Document]) -> list[OrphanedNodes]:
    """Return NodePools and NodeClaims as ``argotune gc`` lists them: one entry per run."""
    runs: dict[str, list[Document]] = {}
    for document in objects:
        runs.setdefault(document["metadata"]["labels"][RUN_LABEL], []).append(document)
    return [_to_orphan(run, documents) for run, documents in sorted(runs.items())]


def _to_orphan(run: str, documents: Sequence[Document]) -> OrphanedNodes:
    claims = [document for document in documents if "template" not in document["spec"]]
    annotations = next((a for a in (d["metadata"].get("annotations") or {} for d in documents) if LEASE in a), {})
    leases = [
        parse_timestamp((document["metadata"].get("annotations") or {}).get(LEASE, "")) for document in documents
    ]
    sizes = {str(size) for document in claims for size in _values(document, "node.kubernetes.io/instance-type")}
    is_deleting = all(document["metadata"].get("deletionTimestamp") for document in documents)
    return OrphanedNodes(
        provider="karpenter",
        name=pool_name(run, 0).rpartition("-")[0],
        run=run,
        workspace=annotations.get(WORKSPACE, ""),
        workflow=annotations.get(WORKFLOW, ""),
        namespace=annotations.get(NAMESPACE, ""),
        size=", ".join(sorted(sizes)),
        nodes=len(claims),
        state="Deleting" if is_deleting else "Ready" if claims and all(map(is_ready, claims)) else "NotReady",
        created=parse_timestamp(annotations.get(CREATED, "")),
        lease_until=max((lease for lease in leases if lease), default=None),
    )


def is_ready(document: Document) -> bool:
    """Return True if the node of a NodeClaim is ready, as far as Karpenter checks."""
    return condition(document, "Ready").get("status") == "True"


def condition(document: Document, kind: str) -> Document:
    """Return a condition of an object's status; empty if it has none of this type."""
    conditions = (document.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def _kinds(settings: Settings) -> list[tuple[str, bool]]:
    return [(size, spot) for spot in ([True, False] if settings.spot else [False]) for size in settings.sizes]


def _pool_of(settings: Settings, option: NodeOption) -> str:
    return pool_name(settings.run, _kinds(settings).index((option.size, option.spot)))


def _capacity_type(spot: bool) -> str:
    return "spot" if spot else "on-demand"


def _gpus(settings: Settings, size: str) -> int:
    """Return the GPUs of one node, all of which count against a limit."""
    import presets

    try:
        return max(settings.gpus, presets.sku(size).gpus)
    except presets.UnknownSku:
        return settings.gpus


def _is_in(key: str, values: Sequence[str]) -> Document:
    return {"key": key, "operator": "In", "values": list(values)}


def _values(document: Document, key: str) -> list[str]:
    requirements = document["spec"].get("requirements") or []
    return [value for entry in requirements if entry["key"] == key for value in entry.get("values") or []]


def _digest(run: str) -> str:
    return hashlib.sha256(run.encode()).hexdigest()
