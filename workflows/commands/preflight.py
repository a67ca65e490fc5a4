"""``argotune preflight``: runs the checks of a run's first step from this machine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workflows.errors import of_step_error

if TYPE_CHECKING:
    from steps.preflight.settings import Settings
    from workflows.plan.model import Plan

EPILOG = """Checks that the data is reachable parquet, that the registry accepts a push and that the model is
accessible, with your credentials: docker login, HF_TOKEN, az login. --cluster also checks the quotas of the
namespace and of Azure. 'argotune validate --cluster' checks Secrets, claims and service accounts.

Examples:
  # Check data, registry and model
  argotune preflight workspace.yaml
  # Check the quotas of the cluster, too
  argotune preflight workspace.yaml --cluster
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune preflight``."""
    from workflows.commands import compile as compiling

    compiling.add_arguments(parser, output=False)
    parser.epilog = EPILOG
    parser.add_argument("--cluster", action="store_true", help="Check the quotas of the cluster and its cloud, too")


def run(args: argparse.Namespace) -> int:
    """Ask everything for each Workspace of the file; all its faults are told at once.

    Raises:
        InvalidInput: the file, a flag or the site profile is wrong.
        ArgotuneError: with the step's own exit code, when something speaks against a run.
    """
    from steps.preflight.step import preflight, together
    from steps.runtime.errors import StepError
    from workflows.load_plans import plans

    failed: list[StepError] = []
    for plan in plans(args.file, args.set, args.site, args.namespace):
        try:
            print(preflight(settings(plan, in_cluster=args.cluster)).summary)
        except StepError as error:
            failed.append(error)
    if failed:
        raise of_step_error(together(failed))
    return 0


def settings(plan: Plan, *, in_cluster: bool) -> Settings:
    """Those of the compiled step, without the folders that only its pod has."""
    from steps.preflight import step as preflight
    from steps.runtime import entrypoint
    from workflows.compile.step_flags import of_step

    here = {flag: value for flag, value in of_step(plan, "preflight").items() if _is_here(flag, value)}
    given = here | {"--work": ".", "--in-cluster": str(in_cluster).lower()}
    parsed: Settings = entrypoint.parse(
        preflight.Settings, [word for pair in given.items() for word in pair], "preflight"
    )
    return parsed


def _is_here(flag: str, value: str) -> bool:
    return not value.startswith("/mnt/") or flag == "--model"
