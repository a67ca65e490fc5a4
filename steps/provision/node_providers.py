"""Providers of GPU nodes, and the labels that mark nodes created for a run; free of step settings, for the compiler.

A provider is a module with five functions. ``provision(settings) -> Result`` creates the run's nodes, or finds them;
``release(settings) -> str`` deletes exactly what the run created, is idempotent, and returns a summary;
``list_orphans(place) -> list[OrphanedNodes]`` lists nodes that were never released; ``remove(place, leftover)``
deletes one of them; ``is_same_cluster(place, host)`` returns True if a kubeconfig for ``host`` leads to the same
cluster, so that a run which is missing there is gone.
"""

from __future__ import annotations

import importlib
from types import ModuleType

RUN_LABEL = "argotune.dev/run"
"""Node label with the uid of the Workflow: its pods select the nodes that were made for it, whatever their size."""
PROVIDERS = {
    "aks": "steps.provision.aks",
    "karpenter": "steps.provision.karpenter",
    "existing": "steps.provision.existing_nodes",
}
"""Modules by provider. ``autoscaler`` has none: the pods ask, and whatever scales the cluster brings nodes."""
CREATING_PROVIDERS = ("aks", "karpenter")
"""Providers that create nodes, which have to be released."""


def provider(name: str) -> ModuleType:
    """The module of a provider that has one; its libraries are imported when its functions are called."""
    return importlib.import_module(PROVIDERS[name])
