"""Nodes that are there already: whether those with the Workspace's labels have the GPUs, and can take a pod now.

ReportData of GPUs are read from what NVIDIA's device plugin and GPU feature discovery say of a node: its allocatable
``nvidia.com/gpu``, and its labels ``nvidia.com/gpu.product`` and ``nvidia.com/gpu.memory`` (MiB of one GPU), as KAITO
reads them. Whether a GPU is free is for the scheduler: a pod waits for one that another has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import NODES, Document
from steps.provision.nodes import TAINT, allocatable
from steps.provision.settings import GPU, Result, Settings
from steps.runtime.errors import BadInput, InsufficientCapacity, StepError

if TYPE_CHECKING:
    from steps.kubernetes.client import KubernetesClient

SIZE = "node.kubernetes.io/instance-type"
TOLERATED = ((TAINT["key"], TAINT["value"]), (GPU, None), ("kubernetes.azure.com/scalesetpriority", "spot"))
"""Key and value of the taints that pods which compute tolerate; None: any value."""
MEMORY_KEPT = 0.9
"""Drivers keep a part of the memory for themselves: an 80 GiB card reports a little less."""


@dataclass(frozen=True)
class Candidate:
    """A node, and why it won't do."""

    name: str
    gpus: str
    lacks: tuple[str, ...] = ()
    """Missing requirements."""
    hindered: tuple[str, ...] = ()
    """Temporary reasons that keep pods away."""


def provision(settings: Settings, client: KubernetesClient | None = None) -> Result:
    """Look for nodes that will do.

    Raises:
        BadInput: no node has the labels, or we may not look.
        InsufficientCapacity: too few of those that have can ever do; says why of each.
        StepError: enough would do, but some can't take pods now; a later try may find them.
    """
    client = client or kubernetes_client.connect()
    found = client.list(NODES, labels=selector(settings))
    if not found:
        raise BadInput(
            f"no node has {selector(settings) or 'GPUs'}",
            "kubectl get nodes --show-labels tells what there is; resource.labelSelector of the Workspace chooses",
        )
    candidates = [_candidate(node, settings) for node in found]
    useful = [one for one in candidates if not one.lacks and not one.hindered]
    for one in candidates:
        print(f"{one.name}: {'; '.join((*one.lacks, *one.hindered)) or one.gpus}", flush=True)
    if len(useful) < settings.count:
        raise _too_few(settings, candidates, useful)
    kinds = sorted({one.gpus for one in useful})
    if len(kinds) > 1:
        print(f"note: these nodes are not alike ({', '.join(kinds)}); the labels could say which", flush=True)
    return Result(
        "cuda", [one.name for one in useful], f"{len(useful)} of {len(found)} nodes will do: {_list(useful)}"
    )


def selector(settings: Settings) -> str:
    """Label selector of the nodes that pods of this Workspace select."""
    parts = [f"{key}={value}" for key, value in sorted(settings.labels.items())]
    if settings.instance_type:
        parts.append(f"{SIZE} in ({','.join(settings.sizes)})")
    # Without either, any node with a GPU may be meant.
    return ",".join(parts) or f"{GPU}.present=true"


def _candidate(node: Document, settings: Settings) -> Candidate:
    metadata = node["metadata"]
    labels = metadata.get("labels") or {}
    there = allocatable(node, settings.gpu_resource)
    memory = _memory_gib(labels)
    shown = f"{there} x {labels.get(f'{GPU}.product') or settings.gpu_resource}"
    return Candidate(
        metadata["name"],
        f"{shown}, {memory:.0f} GiB each" if memory else shown,
        tuple([*_gpu_lacks(labels, there, settings), *_memory_lacks(memory, settings)]),
        tuple(_hindrances(node)),
    )


def _gpu_lacks(labels: Document, there: int, settings: Settings) -> list[str]:
    if there >= settings.gpus:
        return []
    built_in = labels.get(f"{GPU}.count")
    plugin = f", though it has {built_in}: NVIDIA's device plugin does not run on it" if built_in and not there else ""
    return [f"offers {there} {settings.gpu_resource}, {settings.gpus} needed{plugin}"]


def _memory_lacks(memory: float, settings: Settings) -> list[str]:
    """Less memory than the sizes asked for have; parts of GPUs (MIG) are chosen by their own name."""
    import presets

    if not memory or not settings.instance_type or settings.gpu_resource != GPU:
        return []
    try:
        requested = min(presets.sku(size).gpu_memory_gib for size in settings.sizes)
    except presets.UnknownSku:
        return []
    if memory >= requested * MEMORY_KEPT:
        return []
    return [f"has {memory:.0f} GiB a GPU, {requested:.0f} needed"]


def _memory_gib(labels: Document) -> float:
    text = str(labels.get(f"{GPU}.memory") or "0")
    return int(text) / 1024 if text.isdigit() else 0.0


def _hindrances(node: Document) -> list[str]:
    """Return what keeps pods away, in words."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready: Document = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    found = []
    if ready.get("status") != "True":
        found.append(f"is not ready{': ' + ready['message'] if ready.get('message') else ''}")
    if spec.get("unschedulable"):
        found.append(f"is cordoned (kubectl uncordon {node['metadata']['name']})")
    for taint in spec.get("taints") or []:
        # Taints of kubelet and of cordons repeat the conditions above.
        if taint.get("key", "").startswith("node.kubernetes.io/") or _is_tolerated(taint):
            continue
        value = f"={taint['value']}" if taint.get("value") else ""
        found.append(f"has the taint {taint['key']}{value}:{taint['effect']}, which pods of runs don't tolerate")
    return found


def _is_tolerated(taint: Document) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    same = ((key, value) for key, value in TOLERATED if key == taint.get("key"))
    return taint.get("effect") == "NoSchedule" and any(value in (None, taint.get("value")) for _, value in same)


def _too_few(settings: Settings, candidates: Sequence[Candidate], useful: Sequence[Candidate]) -> StepError:
    lines = "".join(
        f"\n  {one.name}: {'; '.join((*one.lacks, *one.hindered))}" for one in candidates if one.lacks or one.hindered
    )
    what = (
        f"{len(useful)} of {len(candidates)} nodes with {selector(settings)} will do, {settings.count} needed:{lines}"
    )
    if sum(not one.lacks for one in candidates) >= settings.count:
        return StepError(what, "free these nodes, or wait; it is tried again")
    return InsufficientCapacity(what, "add nodes, or choose others by resource.labelSelector of the Workspace")


def _list(useful: Sequence[Candidate]) -> str:
    shown = [f"{one.name} ({one.gpus})" for one in useful[:5]]
    return ", ".join(shown) + (f" and {len(useful) - 5} more" if len(useful) > 5 else "")
