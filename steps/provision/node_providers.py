"""Who makes nodes, and how nodes that were made are known: what the compiler needs too, without the settings of steps.

A provider is a module with five functions. ``provision(settings) -> Result`` makes nodes exist, or finds those of this
run again; ``release(settings) -> str`` gives back exactly what this run made, as often as it is called, and says so in
a sentence; ``list_orphans(place) -> list[OrphanedNodes]`` lists what runs made and never released; ``remove(place,
leftover)`` gives one of those back; ``is_same_cluster(place, host)`` tells whether a kubeconfig for ``host`` is one for
the cluster of the place, so that runs which are not there are gone, and not elsewhere.
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
"""Providers that make something which has to be given back."""


def provider(name: str) -> ModuleType:
    """The module of a provider that has one; its libraries are imported when its functions are called."""
    return importlib.import_module(PROVIDERS[name])
