"""``argotune stop``: stops local runs and their servers, or with ``--cluster`` a run on a cluster."""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

from workflows.commands import where
from workflows.errors import ArgotuneError, InvalidInput, Problem, use_one_of

EXAMPLES = """Examples:
  # Stop the only local server
  argotune stop
  # Stop a local run (its name or folder), with its exit handler, or its server
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
    where.add_runs_dir(parser)
    parser.add_argument(
        "--cluster", action="store_true", help="Stop a run on a cluster (implied by other cluster flags)"
    )
    parser.add_argument("--terminate", action="store_true", help="Stop immediately, without running the exit handler")
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Stop servers or a cluster run and print what was stopped; nothing to stop is not an error.

    Raises:
        InvalidInput: the run does not exist, or several are served and none is named.
        ApiFailure: the request failed.
    """
    if args.cluster or args.terminate or args.namespace or args.context or args.kubeconfig:
        return _stop_on_cluster(args)
    from steps.runtime.errors import StepError
    from steps.serving import server

    if args.name and args.all:
        raise InvalidInput(Problem("RUN cannot be combined with --all", fix="pass one of them"))
    runs = Path(args.runs_dir)
    if args.name and _stop_runner(runs, args.name):
        return 0
    existing = records(run_folder(runs, args.name) if args.name else None, runs)
    alive = [record for record in existing if (item := server.read(record)) and server.processes(item)]
    services = {run_of(record) for record in alive}
    if not args.name and not args.all and len(services) > 1:
        names = ", ".join(sorted(folder.name for folder in services))
        raise InvalidInput(Problem(f"several runs are served: {names}", fix="name one, or pass --all"))
    try:
        for record in existing:
            if stopped := server.stop(record):
                print(f"stopped {run_of(record).name} at {stopped.endpoint}")
    except StepError as error:
        raise ArgotuneError(str(error)) from None
    if not alive:
        print(f"no server is running for {args.name or f'the runs in {where.show(runs)}'}")
    return 0


def _stop_runner(runs: Path, name: str) -> bool:
    """Stop the runner of a local run as Ctrl-C does; return False if it is not running."""
    from workflows.runner import local_runs

    found = local_runs.find_run(runs, name)
    if found is None or not found.is_active:
        return False
    try:
        os.kill(found.runner, signal.SIGTERM)
    except ProcessLookupError:
        return False
    follow = f"argotune status {found.status.name} --watch"
    print(f"stopping {found.status.name}; its exit handler still runs: {follow}")
    return True


def _stop_on_cluster(args: argparse.Namespace) -> int:
    """Stop a run on a cluster, unless it has already ended."""
    from workflows.cluster import connect, live, lookup

    if args.all or not args.name:
        raise InvalidInput(Problem("RUN is required with --cluster", fix="use argotune stop RUN --cluster"))
    api = connect.connect(args)
    status = lookup.find_run(api, args.name)
    if status.is_ended:
        print(f"{status.name} has already ended: {status.phase}")
        return 0
    api.shut_down(status.name, terminate=args.terminate)
    if args.terminate:
        print(f"terminating {status.name}; its exit handler does not run; check for its nodes with argotune gc")
    else:
        follow = f"argotune status {status.name} --watch{live.namespace_flag(api)}"
        print(f"stopping {status.name}; its exit handler still runs: {follow}")
    return 0


def run_folder(runs: Path, name: str) -> Path:
    """Return the folder of a run by name or path.

    Raises:
        InvalidInput: it does not exist.
    """
    folder = next((path for path in (runs / name, Path(name)) if _is_run(path)), None)
    if folder is None:
        served = sorted({run_of(record).name for record in records(None, runs)})
        known = use_one_of(served, where.OTHER_FOLDER)
        fix = f"{known}, or add --cluster for a run on a cluster"
        raise InvalidInput(Problem(f'run "{name}" not found in {where.show(runs)}', fix=fix))
    return folder


def _is_run(folder: Path) -> bool:
    return (folder / "volumes").is_dir() or (folder / "state.json").is_file()


def records(folder: Path | None, runs: Path) -> list[Path]:
    """Return the server records of one run, or of all runs in ``runs``; starting servers first."""
    from steps.serving import server

    root, pattern = (folder, "volumes/*/serve") if folder else (runs, "*/volumes/*/serve")
    return [record for name in (server.STARTING, server.RECORD) for record in sorted(root.glob(f"{pattern}/{name}"))]


def run_of(record: Path) -> Path:
    """Return the run folder of a server record."""
    return record.absolute().parents[3]
