"""``argotune port-forward``: reaches a model that a cluster serves, through the API server."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Iterator

from workflows.errors import from_step_error

EXAMPLES = """Examples:
  # Serve the adapter of the Workspace oncall on http://127.0.0.1:8000 until Ctrl-C
  argotune port-forward oncall -n argotune --port 8000

The cluster is that of $KUBECONFIG or ~/.kube/config. Inside the cluster, use the address of the run's endpoint.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune port-forward``."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="SERVICE", help="Name of the service: that of its Workspace")
    text = "Namespace (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
    parser.add_argument("-n", "--namespace", default="", help=text)
    parser.add_argument("--port", type=int, default=8000, help="Local port; 0: any free one (default: 8000)")


def run(args: argparse.Namespace) -> int:
    """Print the address and forward until the user stops it.

    Raises:
        ArgotuneError: the service does not exist, or has no ready pod.
    """
    with reach(args.name, args.namespace, args.port) as address:
        print(f"{args.name} is at {address}/v1 (OpenAI API); Ctrl-C to end", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
    return 0


@contextlib.contextmanager
def reach(service: str, namespace: str, port: int = 0) -> Iterator[str]:
    """Yield the address on this machine of a model that the cluster serves; convert errors of steps."""
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError
    from workflows.cluster import connect, forward

    try:
        cluster = kubernetes_client.connect()
        selected = argparse.Namespace(namespace=namespace)
        cluster.namespace = connect.select_namespace(selected) or cluster.namespace
        with forward.forward(cluster, service, port) as address:
            yield address
    except StepError as error:
        raise from_step_error(error) from None
