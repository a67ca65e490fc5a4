"""Providers of GPU nodes, and the labels that mark nodes created for a run; free of step settings, for the compiler.

A provider is a module with five functions. ``provision(settings) -> Result`` creates the run's nodes, or finds them;
``release(settings) -> str`` deletes exactly what the run created, is idempotent, and returns a summary;
``list_orphans(cluster_ref) -> list[OrphanedNodes]`` lists nodes that were not released;
``remove(cluster_ref, orphan)`` deletes one entry; ``is_same_cluster(cluster_ref, host)`` returns True if ``host`` is
the API server of that cluster, so that a run which is missing there no longer exists.
"""

from __future__ import annotations

import importlib
from types import ModuleType

RUN_LABEL = "argotune.dev/run"
"""Node label with the uid of the Workflow, by which its pods select the nodes created for it."""
PROVIDERS = {
    "aks": "steps.provision.aks",
    "karpenter": "steps.provision.karpenter",
    "existing": "steps.provision.existing_nodes",
}
"""Modules by provider. ``autoscaler`` has none: the cluster's autoscaler adds nodes for pending pods."""
CREATING_PROVIDERS = ("aks", "karpenter")
"""Providers that create nodes, which must be released."""


def provider(name: str) -> ModuleType:
    """Return the module of a provider; it imports its libraries when its functions are called."""
    return importlib.import_module(PROVIDERS[name])
