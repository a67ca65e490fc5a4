"""Existing nodes: check that those with the Workspace's labels have the GPUs and accept pods.

A node's GPUs are those that NVIDIA's device plugin and GPU feature discovery report, as for KAITO: its allocatable
``nvidia.com/gpu``, and its labels ``nvidia.com/gpu.product`` and ``nvidia.com/gpu.memory`` (MiB of one GPU). GPUs in
use count too: a pod waits until the scheduler finds a free one.
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

INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
TOLERATED = ((TAINT["key"], TAINT["value"]), (GPU, None), ("kubernetes.azure.com/scalesetpriority", "spot"))
"""Key and value of the taints that GPU pods tolerate; None: any value."""
USABLE_MEMORY_RATIO = 0.9
"""Part of the memory that a GPU reports at least: drivers reserve some of an 80 GiB card."""
MAX_LISTED = 5


@dataclass(frozen=True)
class Candidate:
    """A node, and the reasons why it is not suitable."""

    name: str
    gpus: str
    missing: tuple[str, ...] = ()
    """Requirements that it does not meet."""
    blocked: tuple[str, ...] = ()
    """Temporary reasons why it accepts no pods."""

    @property
    def reasons(self) -> str:
        """All reasons as text; empty if the node is suitable."""
        return "; ".join((*self.missing, *self.blocked))


def provision(settings: Settings, client: KubernetesClient | None = None) -> Result:
    """Find suitable nodes.

    Raises:
        BadInput: no node has the labels, or nodes cannot be read.
        InsufficientCapacity: too few nodes meet the requirements, with the reason for each.
        StepError: enough nodes meet the requirements, but some accept no pods at the moment.
    """
    client = client or kubernetes_client.connect()
    nodes = client.list(NODES, labels=selector(settings))
    if not nodes:
        raise BadInput(
            f"no node has {selector(settings) or 'GPUs'}",
            "list the labels with kubectl get nodes --show-labels, and set resource.labelSelector in the Workspace",
        )
    candidates = [_candidate(node, settings) for node in nodes]
    suitable = [candidate for candidate in candidates if not candidate.reasons]
    for candidate in candidates:
        print(f"{candidate.name}: {candidate.reasons or candidate.gpus}", flush=True)
    if len(suitable) < settings.count:
        raise _too_few(settings, candidates, suitable)
    kinds = sorted({candidate.gpus for candidate in suitable})
    if len(kinds) > 1:
        print(f"note: the nodes have different GPUs ({', '.join(kinds)}); add labels to select one kind", flush=True)
    summary = f"{len(suitable)} of {len(nodes)} nodes are suitable: {_list(suitable)}"
    return Result("cuda", [candidate.name for candidate in suitable], summary)


def selector(settings: Settings) -> str:
    """Return the label selector of the nodes that pods of this Workspace select."""
    parts = [f"{key}={value}" for key, value in sorted(settings.labels.items())]
    if settings.instance_type:
        parts.append(f"{INSTANCE_TYPE_LABEL} in ({','.join(settings.sizes)})")
    # Without labels and instance type, any node with a GPU is acceptable.
    return ",".join(parts) or f"{GPU}.present=true"


def _candidate(node: Document, settings: Settings) -> Candidate:
    metadata = node["metadata"]
    labels = metadata.get("labels") or {}
    count = allocatable(node, settings.gpu_resource)
    memory = _memory_gib(labels)
    gpus = f"{count} x {labels.get(f'{GPU}.product') or settings.gpu_resource}"
    return Candidate(
        metadata["name"],
        f"{gpus}, {memory:.0f} GiB each" if memory else gpus,
        missing=(*_missing_gpus(labels, count, settings), *_missing_memory(memory, settings)),
        blocked=tuple(_blocking_conditions(node)),
    )


def _missing_gpus(labels: Document, count: int, settings: Settings) -> list[str]:
    if count >= settings.gpus:
        return []
    installed = labels.get(f"{GPU}.count")
    plugin = f"; it has {installed}, but NVIDIA's device plugin does not run on it" if installed and not count else ""
    return [f"has {count} allocatable {settings.gpu_resource}, {settings.gpus} required{plugin}"]


def _missing_memory(memory: float, settings: Settings) -> list[str]:
    """Compare the memory with that of the instance types; a part of a GPU (MIG) is selected by its resource name."""
    import presets

    if not memory or not settings.instance_type or settings.gpu_resource != GPU:
        return []
    try:
        required = min(presets.sku(size).gpu_memory_gib for size in settings.sizes)
    except presets.UnknownSku:
        return []
    if memory >= required * USABLE_MEMORY_RATIO:
        return []
    return [f"has {memory:.0f} GiB per GPU, {required:.0f} GiB required"]


def _memory_gib(labels: Document) -> float:
    text = str(labels.get(f"{GPU}.memory") or "0")
    return int(text) / 1024 if text.isdigit() else 0.0


def _blocking_conditions(node: Document) -> list[str]:
    """Return the reasons why a node accepts no pods of a run."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    ready: Document = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    reasons = []
    if ready.get("status") != "True":
        reasons.append(f"is not ready{': ' + ready['message'] if ready.get('message') else ''}")
    if spec.get("unschedulable"):
        reasons.append(f"is cordoned (kubectl uncordon {node['metadata']['name']})")
    for taint in spec.get("taints") or []:
        # Taints of kubelet and of cordons repeat the conditions above.
        if taint.get("key", "").startswith("node.kubernetes.io/") or _is_tolerated(taint):
            continue
        value = f"={taint['value']}" if taint.get("value") else ""
        reasons.append(f"has the taint {taint['key']}{value}:{taint['effect']}, which the run's pods do not tolerate")
    return reasons


def _is_tolerated(taint: Document) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    values = [value for key, value in TOLERATED if key == taint.get("key")]
    return taint.get("effect") == "NoSchedule" and any(value in (None, taint.get("value")) for value in values)


def _too_few(settings: Settings, candidates: Sequence[Candidate], suitable: Sequence[Candidate]) -> StepError:
    lines = "".join(f"\n  {candidate.name}: {candidate.reasons}" for candidate in candidates if candidate.reasons)
    message = (
        f"{len(suitable)} of {len(candidates)} nodes with {selector(settings)} are suitable, "
        f"{settings.count} required:{lines}"
    )
    if sum(not candidate.missing for candidate in candidates) >= settings.count:
        return StepError(message, "make these nodes accept pods; the step is retried")
    return InsufficientCapacity(message, "add nodes, or select others with resource.labelSelector in the Workspace")


def _list(suitable: Sequence[Candidate]) -> str:
    listed = [f"{candidate.name} ({candidate.gpus})" for candidate in suitable[:MAX_LISTED]]
    return ", ".join(listed) + (f" and {len(suitable) - MAX_LISTED} more" if len(suitable) > MAX_LISTED else "")
