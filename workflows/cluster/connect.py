"""Selection of the cluster, by the flags that all cluster commands share and by the environment.

An Argo server if ARGO_SERVER is set and no flag names a kubeconfig or a context; otherwise the Kubernetes API.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from workflows.cluster.workflows_api import Workflows
from workflows.plan import site

if TYPE_CHECKING:
    from workflows.cluster.kubernetes_api import KubernetesWorkflows


def add_arguments(parser: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """Declare the flags that select a cluster and a namespace."""
    group = parser.add_argument_group("cluster")
    if namespace:
        text = "Namespace (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
        group.add_argument("-n", "--namespace", help=text)
    group.add_argument("--context", help="Context of the kubeconfig (default: the current context)")
    group.add_argument("--kubeconfig", metavar="FILE", help="Kubeconfig file (default: $KUBECONFIG or ~/.kube/config)")


def connect(args: argparse.Namespace, namespace: str = "") -> Workflows:
    """Return the Workflows API that flags and environment select; ``namespace`` is that of the user's document.

    Raises:
        InvalidInput: no cluster is configured; the fix shows how to configure one.
    """
    if os.environ.get("ARGO_SERVER") and not args.context and not args.kubeconfig:
        from workflows.cluster import argo_server

        return argo_server.connect(select_namespace(args, namespace))
    return connect_to_kubernetes(args, namespace)


def connect_to_kubernetes(args: argparse.Namespace, namespace: str = "") -> KubernetesWorkflows:
    """Return the Kubernetes API that flags and environment select, also where an Argo server is set."""
    from workflows.cluster import kubernetes_api

    kubeconfig, context = getattr(args, "kubeconfig", None), getattr(args, "context", None)
    return kubernetes_api.connect(kubeconfig, context, select_namespace(args, namespace))


def select_namespace(args: argparse.Namespace, document: str = "") -> str:
    """Return the namespace of the flag, the user's document, the environment or the site profile; else empty."""
    return (
        args.namespace
        or document
        or os.environ.get("ARGO_NAMESPACE")
        or str(site.load(getattr(args, "site", None)).get("namespace") or "")
    )
