"""``argotune rollback``: what a service on a cluster served before comes back, or its canary ends."""

from __future__ import annotations

import argparse

from workflows.commands import promote

EXAMPLES = """examples:
  argotune rollback oncall       ends the canary of the service oncall; without one, what was served before comes back

A second rollback undoes the first. $KUBECONFIG, else ~/.kube/config, says which cluster.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune rollback``."""
    parser.epilog = EXAMPLES
    promote.add_service(parser)


def run(args: argparse.Namespace) -> int:
    """Go back, and say what is served now; raises as ``argotune promote``."""
    from steps.rollout import service_change

    return promote.change(args, service_change.rollback)
