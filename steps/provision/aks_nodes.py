"""Readiness of the nodes of a new pool: Azure reports a pool ready before its GPUs are allocatable.

That is for NVIDIA's device plugin. Where it is missing, or does not tolerate the taint of the nodes, pods that ask for
GPUs would wait until the run's time is over, and nothing would say why.
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
"""Seconds that the plugin may take. Soon after, the autoscaler would take back nodes that nothing uses yet."""


def wait_for_gpus(
    settings: Settings,
    count: int,
    pause: Callable[[float], None],
    connect: Callable[[], KubernetesClient] = kubernetes_client.connect,
) -> list[str]:
    """Return the nodes of a run once ``count`` have allocatable GPUs; none without permission to read nodes.

    Raises:
        BadInput: nothing offers them.
        DeadlineExceeded: the step's deadline has come.
    """
    waited, last_state = 0, ""
    client: KubernetesClient | None = None
    while True:
        try:
            client = client or connect()
            found = client.list(NODES, labels=f"{RUN_LABEL}={settings.run}")
        except BadInput as error:
            print(f"the nodes' GPUs are not looked at: {error.message}", flush=True)
            return []
        useful = sorted(node["metadata"]["name"] for node in found if _gpus(node) >= settings.gpus)
        if len(useful) >= count:
            return useful
        state = f"{len(useful)} of {count} nodes offer {settings.gpus} {GPU}"
        if waited >= MAX_PENDING_SECONDS:
            fix = "NVIDIA's device plugin must be on these nodes and tolerate their taint sku=gpu (docs/NODES.md)"
            raise BadInput(f"after {waited // 60} minutes {state}", fix)
        if state != last_state:
            print(f"waiting: {state}", flush=True)
            last_state = state
        pause(POLL_SECONDS)
        waited += POLL_SECONDS


def _gpus(node: dict[str, Any]) -> int:
    """GPUs that a node offers to pods; none before it is ready."""
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return allocatable(node) if ready else 0
