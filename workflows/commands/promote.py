"""``argotune promote``: promotes the canary of a service on a cluster to all traffic."""

from __future__ import annotations

import argparse
from typing import Any

from workflows.argo.duration import parse_duration
from workflows.errors import InvalidInput, Problem, from_step_error

EXAMPLES = """Examples:
  # Promote the canary of the service oncall (the name of its Workspace)
  argotune promote oncall

The cluster is that of $KUBECONFIG or ~/.kube/config. If the base model and its flags are the same, the running servers
load the canary's adapter, which needs no further GPU; they are reached through the API server (Role argotune-client).
If not, new servers are ready before old ones are removed. If that fails, the previous release stays live.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune promote``."""
    parser.epilog = EXAMPLES
    add_service(parser)


def add_service(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that select a service; ``argotune rollback`` shares them."""
    parser.add_argument("name", metavar="SERVICE", help="Name of the service: that of its Workspace")
    text = "Namespace (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
    parser.add_argument("-n", "--namespace", default="", help=text)
    parser.add_argument("--deadline", default="15m", help="Time limit for servers to become ready (default: 15m)")


def run(args: argparse.Namespace) -> int:
    """Promote the canary and print what is served.

    Raises:
        InvalidInput: the service, the canary or the cluster does not exist.
        ArgotuneError: the servers did not become ready; the previous release stays live.
    """
    from steps.rollout import service_change

    return change(args, service_change.promote)


def change(args: argparse.Namespace, function: Any) -> int:
    """Call ``function(cluster, name, deadline)`` and convert errors of steps."""
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError
    from workflows.cluster import connect

    try:
        deadline = parse_duration(args.deadline)
    except ValueError as error:
        raise InvalidInput(Problem(str(error), "--deadline")) from None
    try:
        cluster = kubernetes_client.connect()
        cluster.namespace = connect.select_namespace(args) or cluster.namespace
        print(function(cluster, args.name, deadline))
    except StepError as error:
        raise from_step_error(error) from None
    return 0
