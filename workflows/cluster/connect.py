"""Which cluster is meant: flags that all verbs of the cluster have, and the environment.

An Argo server where ARGO_SERVER is set, unless a flag names a kubeconfig or a context; else the Kubernetes API.
"""

from __future__ import annotations

import argparse
import os

from workflows.cluster.workflows_api import Workflows
from workflows.plan import site


def add_arguments(parser: argparse.ArgumentParser, *, namespace: bool = True) -> None:
    """Declare the flags that say which cluster, and which namespace of it."""
    group = parser.add_argument_group("cluster")
    if namespace:
        text = "Namespace (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
        group.add_argument("-n", "--namespace", help=text)
    group.add_argument("--context", help="Context of the kubeconfig (default: the current context)")
    group.add_argument("--kubeconfig", metavar="FILE", help="Kubeconfig file (default: $KUBECONFIG or ~/.kube/config)")


def connect(args: argparse.Namespace, namespace: str = "") -> Workflows:
    """The Workflows that the flags and the environment mean; ``namespace`` is what the user's document says.

    Raises:
        InvalidInput: nothing leads to a cluster; says what there is to do.
    """
    chosen = (
        args.namespace
        or namespace
        or os.environ.get("ARGO_NAMESPACE")
        or str(site.load(getattr(args, "site", None)).get("namespace") or "")
    )
    if os.environ.get("ARGO_SERVER") and not args.context and not args.kubeconfig:
        from workflows.cluster import argo_server

        return argo_server.connect(chosen)
    from workflows.cluster import kubernetes_api

    return kubernetes_api.connect(args.kubeconfig, args.context, chosen)
