"""``argotune stop``: ends the servers that runs on this machine have started."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from workflows.errors import ArgotuneError, InvalidInput, Problem

EXAMPLES = """examples:
  argotune stop                    stop the server that runs; says which there are when there are several
  argotune stop workspace-x7k2m    stop the server of a run (its name or its folder)
  argotune stop --all              stop all of them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune stop``."""
    parser.epilog = EXAMPLES
    parser.add_argument("name", nargs="?", metavar="RUN", help="name or folder of a run")
    parser.add_argument("--all", action="store_true", help="stop the servers of all runs")
    add_runs_dir(parser)


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Declare ``--runs-dir``, as ``argotune chat`` has it too."""
    parser.add_argument(
        "--runs-dir",
        default=os.environ.get("ARGOTUNE_RUNS", "runs"),
        help="folder that holds the runs (default: $ARGOTUNE_RUNS or ./runs)",
    )


def run(args: argparse.Namespace) -> int:
    """Stop what is asked for and say what was stopped; nothing to stop is no error.

    Raises:
        InvalidInput: the run does not exist, or none is named and several are served.
    """
    from steps import server
    from steps.errors import StepError

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


def run_folder(runs: Path, name: str) -> Path:
    """Folder of the run that ``name`` (a name or a path) means.

    Raises:
        InvalidInput: there is none.
    """
    folder = next((place for place in (runs / name, Path(name)) if (place / "volumes").is_dir()), None)
    if folder is None:
        served = ", ".join(sorted({run_of(record).name for record in records(None, runs)})) or "none"
        raise InvalidInput(Problem(f"no run {name!r} in {runs}/", fix=f"runs with a server: {served}"))
    return folder


def records(folder: Path | None, runs: Path) -> list[Path]:
    """Records of the servers of one run, or of all runs in ``runs``; those still starting first."""
    from steps import server

    where, pattern = (folder, "volumes/*/serve") if folder else (runs, "*/volumes/*/serve")
    return [record for name in (server.STARTING, server.RECORD) for record in sorted(where.glob(f"{pattern}/{name}"))]


def run_of(record: Path) -> Path:
    """Folder of the run that a record lies in."""
    return record.absolute().parents[3]
