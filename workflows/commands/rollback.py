"""``argotune rollback``: rolls a service on a cluster back to its previous release, or removes its canary."""

from __future__ import annotations

import argparse

from workflows.commands import promote

EXAMPLES = """Examples:
  # Remove the canary of the service oncall; without a canary, roll back to the previous release
  argotune rollback oncall

A second rollback reverts the first. The cluster is that of $KUBECONFIG or ~/.kube/config.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune rollback``."""
    parser.epilog = EXAMPLES
    promote.add_service(parser)


def run(args: argparse.Namespace) -> int:
    """Roll back and print what is served; raises as ``argotune promote``."""
    from steps.rollout import service_change

    return promote.change(args, service_change.rollback)
