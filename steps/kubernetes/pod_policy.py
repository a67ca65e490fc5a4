"""Security, scheduling and eviction rules of the pods of steps and of inference servers.

Plain Kubernetes objects: steps send them as they are, the compiler validates them into Hera's models. The security
contexts satisfy the Pod Security Standard "restricted".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]

POD_SECURITY_CONTEXT: Document = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY_CONTEXT: Document = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
DO_NOT_DISRUPT = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations that keep both usual autoscalers from moving a pod to consolidate nodes."""
GPU_TOLERATIONS: list[Document] = [
    {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule"},
]
"""KAITO's taint of GPU nodes, NVIDIA's, and that of Azure's spot nodes."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""Label of a pod with the LocalQueue of Kueue that admits it."""
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
SPOT_LABELS = {"kubernetes.azure.com/scalesetpriority": "spot", "karpenter.sh/capacity-type": "spot"}
"""Labels of spot nodes: of AKS node pools, and of Karpenter's nodes."""
# Weights of preferences: spot before the order of the instance types; names of nodes break ties.
SPOT_WEIGHT, FIRST_TYPE_WEIGHT, NODE_WEIGHT = 100, 50, 10


def escape_references(text: str) -> str:
    """Escape ``$(NAME)`` in a word of command or args, which Kubernetes replaces by the pod's environment variable.

    Kubernetes also reads ``$$`` as ``$`` (third_party/forked/golang/expansion).
    """
    return re.sub(r"\$(?=[$(])", "$$", text)


def require_label(label: str, *values: str) -> Document:
    """Return a node selector term: the node's label has one of the values."""
    return {"matchExpressions": [{"key": label, "operator": "In", "values": list(values)}]}


def preferred_nodes(instance_types: Sequence[str], names: Sequence[str], *, spot: bool = False) -> list[Document]:
    """Return the scheduler's preferences: spot nodes, then instance types in their order, then nodes by name."""
    preferred: list[Document] = []
    if spot:
        preferred += [
            {"weight": SPOT_WEIGHT, "preference": require_label(label, value)} for label, value in SPOT_LABELS.items()
        ]
    if len(instance_types) > 1:
        preferred += [
            {"weight": max(FIRST_TYPE_WEIGHT - index, 1), "preference": require_label(INSTANCE_TYPE_LABEL, name)}
            for index, name in enumerate(instance_types)
        ]
    for name in names:
        # The node's name is what users write; its label kubernetes.io/hostname can differ.
        by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
        preferred.append({"weight": NODE_WEIGHT, "preference": by_name})
    return preferred
