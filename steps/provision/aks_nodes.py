"""Readiness of the nodes of a new pool: Azure reports a pool ready before its GPUs are allocatable.

NVIDIA's device plugin makes them allocatable. If it is missing or does not tolerate the nodes' taint, pods that
request GPUs would be pending until the run's time limit, without a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steps.kubernetes import client as kubernetes_client
from steps.kubernetes.client import NODES, KubernetesClient
from steps.provision.node_providers import RUN_LABEL
from steps.provision.nodes import allocatable
from steps.provision.settings import GPU, Settings
from steps.runtime.errors import BadInput

POLL_SECONDS = 10
MAX_PENDING_SECONDS = 480
"""Time limit for the plugin. Soon after it, the autoscaler would remove the unused nodes."""


def wait_for_gpus(
    settings: Settings,
    count: int,
    pause: Callable[[float], None],
    connect: Callable[[], KubernetesClient] = kubernetes_client.connect,
) -> list[str]:
    """Return the nodes of a run once ``count`` have allocatable GPUs; none without permission to read nodes.

    Raises:
        BadInput: too few nodes have allocatable GPUs after ``MAX_PENDING_SECONDS``.
        DeadlineExceeded: the step's deadline is over.
    """
    waited, last_state = 0, ""
    client: KubernetesClient | None = None
    while True:
        try:
            client = client or connect()
            nodes = client.list(NODES, labels=f"{RUN_LABEL}={settings.run}")
        except BadInput as error:
            print(f"GPUs of the nodes not checked: {error.message}", flush=True)
            return []
        ready = sorted(node["metadata"]["name"] for node in nodes if _allocatable_gpus(node) >= settings.gpus)
        if len(ready) >= count:
            return ready
        state = f"{len(ready)} of {count} nodes have {settings.gpus} allocatable {GPU}"
        if waited >= MAX_PENDING_SECONDS:
            fix = "run NVIDIA's device plugin on these nodes, with a toleration of their taint sku=gpu (docs/NODES.md)"
            raise BadInput(f"{state} after {waited // 60} minutes", fix)
        if state != last_state:
            print(f"waiting: {state}", flush=True)
            last_state = state
        pause(POLL_SECONDS)
        waited += POLL_SECONDS


def _allocatable_gpus(node: dict[str, Any]) -> int:
    """Return the allocatable GPUs of a node; 0 if it is not ready."""
    conditions = (node.get("status") or {}).get("conditions") or []
    is_ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return allocatable(node) if is_ready else 0
