"""Detection of a pod: steps use the cluster there, and this machine otherwise."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

VARIABLE = "KUBERNETES_SERVICE_HOST"
"""Set by the kubelet in every container."""
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def is_pod() -> bool:
    """Return True in a pod.

    The local runner removes the variable from its steps, also where it runs in a pod itself.
    """
    return VARIABLE in os.environ


def pod_namespace() -> str:
    """Return the namespace of this pod; empty outside a pod, or without a service account."""
    with suppress(OSError):
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() if is_pod() else ""
    return ""


def namespace_flag(namespace: str = "") -> str:
    """Return the flag of kubectl and argo for a namespace, by default that of this pod; empty if it is unknown."""
    namespace = namespace or pod_namespace()
    return f" --namespace {namespace}" if namespace else ""
