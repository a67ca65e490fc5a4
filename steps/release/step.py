"""Gives back what provision made, however the run ended.

One machine stays, and so do nodes that were there before. Those that the cluster's autoscaler brought go when they
have become idle.
"""

from __future__ import annotations

import os

from steps.provision import node_providers
from steps.release.settings import Result, Settings


def release(settings: Settings) -> Result:
    """Give back exactly what this run made, and say what happens to its machines.

    Raises:
        StepError: as the provider's ``release``.
    """
    if "KUBERNETES_SERVICE_HOST" not in os.environ:
        return Result("nothing to release: the run used this machine only")
    if settings.provider in node_providers.CREATING_PROVIDERS:
        return Result(node_providers.provider(settings.provider).release(settings))
    if settings.provider == "existing":
        return Result("nothing to release: the nodes were there before")
    return Result("idle nodes are left to the cluster's autoscaler, which removes them")
