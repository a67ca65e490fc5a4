"""``argotune doctor``: checks a cluster and argotune's installation on it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workflows.doctor.finding import Check, Finding, Site

EXAMPLES = """Examples:
  # Check the cluster of the kubeconfig, and the installation in the namespace of the site profile
  argotune doctor --site site.yaml
  # Argo's controller is in another namespace
  argotune doctor --namespace ml-tuning --argo-namespace argo-workflows

Nothing is created. A check that the user is not permitted to make, or that needs what is not there, is "not checked".
Exit code 1 if a check failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune doctor``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    text = "Namespace (default: $ARGO_NAMESPACE, the site profile's, or the context's)"
    parser.add_argument("-n", "--namespace", default="", help=text)
    parser.add_argument(
        "--argo-namespace", default="argo", metavar="NAME", help="Namespace of Argo's controller (default: argo)"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="Output format")
    compiling.add_site(parser)


def run(args: argparse.Namespace) -> int:
    """Print what each check found; return 1 if one failed.

    Raises:
        InvalidInput: the site profile is invalid.
        ArgotuneError: the cluster cannot be reached.
    """
    from workflows.doctor.finding import run_checks

    site = _site(args)
    findings = []
    checks = run_checks(site, _checks())
    while finding := _next(checks):
        findings.append(finding)
        if args.output == "table":
            _print(finding)
    if args.output == "json":
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    failed = sum(finding.state == "fail" for finding in findings)
    if args.output == "table":
        skipped = sum(finding.state == "not checked" for finding in findings)
        print(f"{len(findings) - failed - skipped} ok, {failed} failed, {skipped} not checked")
    return 1 if failed else 0


def _next(checks: Iterator[Finding]) -> Finding | None:
    """Return the next finding; what clients print about retries goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        return next(checks, None)


def _site(args: argparse.Namespace) -> Site:
    from steps.kubernetes import client as kubernetes_client
    from steps.runtime.errors import StepError
    from workflows.cluster import connect
    from workflows.doctor.finding import Site
    from workflows.errors import from_step_error
    from workflows.plan import site
    from workflows.plan.layers import Layer, merge

    plan = merge([Layer("doctor", {"name": "doctor"}), Layer("site profile", site.load(args.site))])
    try:
        cluster = kubernetes_client.connect()
        cluster.namespace = connect.select_namespace(args) or cluster.namespace
        cluster.check_reachable()
    except StepError as error:
        raise from_step_error(error) from None
    return Site(cluster, plan, args.argo_namespace)


def _checks() -> dict[str, Check]:
    """Return the checks in the order of an installation."""
    from workflows.doctor import argo, installation, nodes

    return {
        "Argo kinds": argo.check_kinds,
        "Argo controller": argo.check_controller,
        "Argo configuration": argo.check_configuration,
        "namespace": installation.check_namespace,
        "own rights": installation.check_own_rights,
        "accounts": installation.check_accounts,
        "account rights": installation.check_executor_rights,
        "semaphore": installation.check_semaphore,
        "storage class": installation.check_storage,
        "models claim": installation.check_models_claim,
        "quota": installation.check_quota,
        "GPUs": nodes.check_gpus,
        "Karpenter": nodes.check_karpenter,
        "images": nodes.check_images,
        "DNS": nodes.check_dns,
    }


def _print(finding: Finding) -> None:
    from steps.runtime import terminal

    print(terminal.escape(f"{finding.state:<11}  {finding.check:<19}  {finding.message}"), flush=True)
    if finding.fix and finding.state != "ok":
        print(terminal.escape(f"{'':<11}  fix: {finding.fix}"), flush=True)
