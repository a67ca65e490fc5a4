"""ConfigMaps that a Workspace names and no file contains, read from the cluster."""

from __future__ import annotations

import argparse
from typing import Any

from workflows.cluster import connect
from workflows.cluster.failures import ApiFailure
from workflows.cluster.kubernetes_api import KubernetesWorkflows
from workflows.cluster.workflows_api import Workflows
from workflows.errors import InvalidInput, Problem
from workflows.spec.config_maps import Lookup

WRITE_OUT = "pass its file too (kubectl get configmap {} --namespace {} --output yaml > {}.yaml)"


def lookup(args: argparse.Namespace, *, argo_server: bool = False) -> Lookup:
    """Return a lookup of ConfigMaps, which connects only if one is needed.

    Args:
        args: the flags of the command, of which the cluster's are optional.
        argo_server: the command can use an Argo server, so that is the cluster where one is set.
    """
    clusters: dict[str, Workflows] = {}

    def find(name: str, namespace: str) -> dict[str, Any]:
        if namespace not in clusters:
            connecting = connect.connect if argo_server else connect.connect_to_kubernetes
            clusters[namespace] = connecting(args, namespace)
        return _read(clusters[namespace], name)

    return find


def _read(cluster: Workflows, name: str) -> dict[str, Any]:
    """Return a ConfigMap; raise InvalidInput if it does not exist, or cannot be read by this user or server."""
    fix = WRITE_OUT.format(name, cluster.namespace, name)
    if not isinstance(cluster, KubernetesWorkflows):
        message = f"ConfigMap '{name}' is in none of the files, and an Argo server does not read ConfigMaps"
        raise InvalidInput(Problem(message, fix=fix))
    try:
        found = cluster.find("v1", "configmaps", name)
    except ApiFailure as failure:
        if failure.status != 403:
            raise
        raise InvalidInput(Problem(failure.message, fix=fix)) from None
    if found is None:
        message = f"ConfigMap '{name}' specified in 'config' not found in namespace '{cluster.namespace}'"
        fix = "add it to the file after a line ---, or create it there with kubectl apply"
        raise InvalidInput(Problem(message, fix=fix))
    return found
