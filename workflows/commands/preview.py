"""``argotune preview``: downloads the rows of a Workspace and shows how they are formatted for training."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan

EXAMPLES = """Examples:
  # Show three rows, with the trained tokens in angle quotes, and warnings
  argotune preview workspace.yaml
  # Show more rows
  argotune preview workspace.yaml --rows 10
  # Read the rows of a volume from a local folder
  argotune preview workspace.yaml --source rows/
"""
SOURCES = ("--urls", "--image", "--source")
"""Flags of download, one of which says where the rows are."""
OF_TUNE = ("--preset", "--model", "--revision", "--max-length", "--training-arguments")
"""What of tuning decides how the model sees a row."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune preview``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    compiling.add_arguments(parser, output=False)
    parser.add_argument("--rows", type=int, default=3, help="Number of rows (default: 3)")
    parser.add_argument("--source", metavar="FOLDER", help="Read the parquet files from this folder")


def run(args: argparse.Namespace) -> int:
    """Run the download step in a folder that is removed afterwards, then the preview step; its exit code.

    Raises:
        InvalidInput: the Workspace does not tune, or its rows are on a volume and ``--source`` is not given.
    """
    plan = _plan(args)
    with tempfile.TemporaryDirectory(prefix="argotune-preview-") as folder:
        work = Path(folder)
        return _step("download", work, _download(plan, args)) or _step("preview", work, _preview(plan, args))


def _plan(args: argparse.Namespace) -> Plan:
    from workflows.load_plans import plans

    found = [plan for plan in plans(args.file, args.set, args.site, args.namespace) if plan.tuning]
    if len(found) != 1:
        what = "several Workspaces tune" if found else "nothing is tuned, so there are no rows"
        raise InvalidInput(Problem(what, file=args.file, fix="give a file with one Workspace that has `tuning`"))
    return found[0]


def _download(plan: Plan, args: argparse.Namespace) -> dict[str, str]:
    from workflows.compile.step_flags import of_step

    flags = of_step(plan, "download")
    if args.source:
        return {flag: value for flag, value in flags.items() if flag not in SOURCES} | {"--source": args.source}
    if "--source" in flags:
        raise InvalidInput(
            Problem("the rows are on a volume", "tuning.input.volumeSource", args.file, fix="give --source FOLDER")
        )
    return flags


def _preview(plan: Plan, args: argparse.Namespace) -> dict[str, str]:
    from workflows.compile.step_flags import of_step

    flags = of_step(plan, "tune")
    return {flag: flags[flag] for flag in OF_TUNE} | {"--rows": str(args.rows)}


def _step(name: str, work: Path, flags: dict[str, str]) -> int:
    """Run a step as a pod would; its exit code."""
    words = [word for pair in (flags | {"--work": str(work)}).items() for word in pair]
    return subprocess.run([sys.executable, "-m", f"steps.{name}", *words], check=False).returncode
