"""``argotune stop``: stops the servers of local runs, or with ``--cluster`` a run on a cluster."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from workflows.errors import ArgotuneError, InvalidInput, Problem

EXAMPLES = """Examples:
  # Stop the only local server
  argotune stop
  # Stop the server of one run (its name or folder)
  argotune stop workspace-x7k2m
  # Stop all local servers
  argotune stop --all
  # Stop a run on a cluster; its exit handler releases nodes and writes the report
  argotune stop oncall-x7k2m --cluster
  # Stop it without the exit handler; its nodes are not released
  argotune stop oncall-x7k2m --terminate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune stop``."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="RUN", help="Name or folder of a run; on a cluster, its name")
    parser.add_argument("--all", action="store_true", help="Stop the servers of all runs")
    add_runs_dir(parser)
    parser.add_argument(
        "--cluster", action="store_true", help="Stop a run on a cluster (implied by other cluster flags)"
    )
    parser.add_argument("--terminate", action="store_true", help="Stop immediately, without running the exit handler")
    connect.add_arguments(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Declare ``--runs-dir``, as ``argotune chat`` has it too."""
    parser.add_argument(
        "--runs-dir",
        default=os.environ.get("ARGOTUNE_RUNS", "runs"),
        help="Folder of the runs (default: $ARGOTUNE_RUNS or ./runs)",
    )


def run(args: argparse.Namespace) -> int:
    """Stop what is asked for and say what was stopped; nothing to stop is no error.

    Raises:
        InvalidInput: the run does not exist, or none is named and several are served.
        ApiFailure: the cluster can't be request, or refuses.
    """
    if args.cluster or args.terminate or args.namespace or args.context or args.kubeconfig:
        return _stop_on_cluster(args)
    from steps.runtime.errors import StepError
    from steps.serving import server

    if args.name and args.all:
        raise InvalidInput(Problem("a run and --all", fix="give one of them"))
    runs = Path(args.runs_dir)
    found = records(run_folder(runs, args.name) if args.name else None, runs)
    alive = [record for record in found if (known := server.read(record)) and server.processes(known)]
    services = {run_of(record) for record in alive}
    if not args.name and not args.all and len(services) > 1:
        names = ", ".join(sorted(folder.name for folder in services))
        raise InvalidInput(Problem(f"several runs are served: {names}", fix="name one, or give --all"))
    try:
        for record in found:
            if stopped := server.stop(record):
                print(f"stopped {run_of(record).name} at {stopped.endpoint}")
    except StepError as error:
        raise ArgotuneError(str(error)) from None
    if not alive:
        print(f"nothing is served by {args.name or f'the runs in {runs}/'}")
    return 0


def _stop_on_cluster(args: argparse.Namespace) -> int:
    """Ask Argo to end a run; what has ended already is left as it is."""
    from workflows.cluster import connect, live, lookup

    if args.all or not args.name:
        raise InvalidInput(Problem("which run on the cluster?", fix="name one: argotune stop NAME --cluster"))
    api = connect.connect(args)
    found = lookup.find(api, args.name)
    if found.is_ended:
        print(f"{found.name} has ended already: {found.phase}")
        return 0
    api.shut_down(found.name, terminate=args.terminate)
    if args.terminate:
        print(f"terminating {found.name}; its exit handler does not run: look for nodes that it made")
    else:
        follow = f"argotune status {found.name} --watch{live.namespace_flag(api)}"
        print(f"stopping {found.name}; its exit handler still runs: {follow}")
    return 0


def run_folder(runs: Path, name: str) -> Path:
    """Folder of the run that ``name`` (a name or a path) means.

    Raises:
        InvalidInput: there is none.
    """
    folder = next((place for place in (runs / name, Path(name)) if (place / "volumes").is_dir()), None)
    if folder is None:
        served = ", ".join(sorted({run_of(record).name for record in records(None, runs)})) or "none"
        fix = f"runs with a server: {served}; if it runs on a cluster, add --cluster"
        raise InvalidInput(Problem(f"no run {name!r} in {runs}/", fix=fix))
    return folder


def records(folder: Path | None, runs: Path) -> list[Path]:
    """Records of the servers of one run, or of all runs in ``runs``; those still starting first."""
    from steps.serving import server

    where, pattern = (folder, "volumes/*/serve") if folder else (runs, "*/volumes/*/serve")
    return [record for name in (server.STARTING, server.RECORD) for record in sorted(where.glob(f"{pattern}/{name}"))]


def run_of(record: Path) -> Path:
    """Folder of the run that a record lies in."""
    return record.absolute().parents[3]
