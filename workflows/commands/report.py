"""``argotune report``: opens the report of a local run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from workflows.commands import where
from workflows.errors import InvalidInput, Problem, use_one_of

EXAMPLES = """Examples:
  # Open the report of the newest local run in a browser
  argotune report
  # Print the path of the report of one run
  argotune report oncall-x7k2m --no-open
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune report``."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "name",
        nargs="?",
        default="@latest",
        metavar="NAME",
        help="Name or folder of a run, name of a Workspace, or @latest (default)",
    )
    parser.add_argument("--no-open", action="store_true", help="Only print the path (default without a display)")
    where.add_runs_dir(parser)


def run(args: argparse.Namespace) -> int:
    """Print the path of the report, and open it where there is a display.

    Raises:
        InvalidInput: the run does not exist, or has no report yet.
    """
    import webbrowser

    from workflows.runner import local_runs

    runs = Path(args.runs_dir)
    found = local_runs.find_run(runs, args.name)
    if found is None:
        names = (run.status.name for run in local_runs.list_runs(runs)[:5])
        fix = use_one_of(names, f"run argotune run FILE; or {where.OTHER_FOLDER}")
        fix += "; for a run on a cluster: argotune logs NAME --step report"
        raise InvalidInput(Problem(f'run "{args.name}" not found in {where.show(runs)}', fix=fix))
    if not found.report.is_file():
        fix = "wait until it ends" if found.is_active else "argotune run FILE --resume writes it"
        raise InvalidInput(Problem(f"{found.status.name} has no report ({found.status.phase})", fix=fix))
    print(found.report.absolute())
    if not args.no_open and _has_display():
        webbrowser.open(found.report.absolute().as_uri())
    return 0


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
