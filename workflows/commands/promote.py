"""``argotune promote``: promotes the canary of a service on a cluster to all traffic."""

from __future__ import annotations

import argparse
from typing import Any

from workflows.argo.duration import seconds
from workflows.errors import InvalidInput, Problem, from_step_error

EXAMPLES = """Examples:
  # Promote the canary of the service oncall (the name of its Workspace)
  argotune promote oncall

The cluster is that of $KUBECONFIG or ~/.kube/config. New servers are ready before old ones are removed; if they do not
become ready, the previous release stays live.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune promote``."""
    parser.epilog = EXAMPLES
    add_service(parser)


def add_service(parser: argparse.ArgumentParser) -> None:
    """Declare which service it is, as ``argotune rollback`` has it too."""
    parser.add_argument("name", metavar="SERVICE", help="Name of the service: that of its Workspace")
    parser.add_argument("-n", "--namespace", default="", help="Namespace of the service (default: the context's)")
    parser.add_argument("--deadline", default="15m", help="Time limit for servers to become ready (default: 15m)")


def run(args: argparse.Namespace) -> int:
    """Promote, and say what is served now.

    Raises:
        InvalidInput: there is no such service or canary, or no cluster.
        ArgotuneError: the servers did not come up; then all is as before.
    """
    from steps.rollout import service_change

    return change(args, service_change.promote)


def change(args: argparse.Namespace, what: Any) -> int:
    """Change a service, with the errors of steps as those of the command line."""
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError

    try:
        deadline = seconds(args.deadline)
    except ValueError as error:
        raise InvalidInput(Problem(str(error), "--deadline")) from None
    try:
        cluster = kubernetes_client.connect()
        cluster.namespace = args.namespace or cluster.namespace
        print(what(cluster, args.name, deadline))
    except StepError as error:
        raise from_step_error(error) from None
    return 0
