"""Selection between the runs of this machine and those on a cluster."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.errors import ArgotuneError, InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.cluster.workflows_api import Workflows
    from workflows.runner.local_runs import LocalRun

OTHER_FOLDER = "change to the folder that has runs/, or pass --runs-dir DIRECTORY"
"""Fix for a run that is not in the folder of local runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of commands for local runs and runs on a cluster."""
    from workflows.cluster import connect

    add_runs_dir(parser)
    parser.add_argument("--cluster", action="store_true", help="Only runs on a cluster (implied by its flags)")
    connect.add_arguments(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Declare ``--runs-dir``."""
    parser.add_argument(
        "--runs-dir",
        default=os.environ.get("ARGOTUNE_RUNS", "runs"),
        help="Folder of the local runs (default: $ARGOTUNE_RUNS or ./runs)",
    )


def is_cluster_only(args: argparse.Namespace) -> bool:
    """Return True if a flag excludes local runs."""
    return bool(args.cluster or args.namespace or args.context or args.kubeconfig)


def find_local(args: argparse.Namespace) -> LocalRun | None:
    """Return the local run that ``args.name`` names; None if it names a run on a cluster.

    Of a Workspace and of ``@latest`` it is the newest run, local or not. A cluster that cannot be reached has none.
    """
    from workflows.cluster import connect, lookup
    from workflows.runner import local_runs
    from workflows.runs.status import LATEST

    if is_cluster_only(args):
        return None
    run = local_runs.find_run(Path(args.runs_dir), args.name)
    if run is None or args.name not in (LATEST, run.status.workspace):
        return run
    try:
        other = lookup.find_run(connect.connect(args), args.name)
    except ArgotuneError:
        return run
    return run if str(run.status.created) > str(other.created) else None


def connect_to_other(args: argparse.Namespace) -> Workflows:
    """Connect to the cluster of ``args.name``, which names no local run.

    Raises:
        InvalidInput: no cluster is configured, so that the run is in another folder; or the connection is invalid.
    """
    from workflows.cluster import connect
    from workflows.cluster.kubernetes_api import NoKubeconfig

    try:
        return connect.connect(args)
    except NoKubeconfig as error:
        if is_cluster_only(args):
            raise
        message = f'run "{args.name}" not found in {show(args.runs_dir)}; no cluster: {error.file} not found'
        raise InvalidInput(Problem(message, fix=f"{OTHER_FOLDER}, or set KUBECONFIG for a run on a cluster")) from None


def show(runs: str | Path) -> str:
    """Return the folder of local runs for messages: absolute, as it depends on the working directory."""
    return f"{Path(runs).absolute()}/"
