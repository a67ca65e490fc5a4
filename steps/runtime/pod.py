"""Detection of a pod: steps use the cluster there, and this machine otherwise."""

from __future__ import annotations

import os

VARIABLE = "KUBERNETES_SERVICE_HOST"
"""Set by the kubelet in every container."""


def is_pod() -> bool:
    """Return True in a pod.

    The local runner removes the variable from its steps, also where it runs in a pod itself.
    """
    return VARIABLE in os.environ
