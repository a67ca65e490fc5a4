"""``argotune preview``: downloads the rows of a Workspace and shows how they are formatted for training."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from steps.runtime.options import Options
    from workflows.plan.model import Plan

EXAMPLES = """Examples:
  # Show three rows, with the trained tokens in angle quotes, and warnings
  argotune preview workspace.yaml
  # Show more rows
  argotune preview workspace.yaml --rows 10
  # Read the rows of a volume from a local folder
  argotune preview workspace.yaml --source rows/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune preview``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    compiling.add_arguments(parser, output=False)
    parser.add_argument("--rows", type=int, default=3, help="Number of rows (default: 3)")
    parser.add_argument("--full", action="store_true", help="Read whole remote files, not only their first rows")
    parser.add_argument("--source", metavar="FOLDER", help="Read the data files from this folder")


def run(args: argparse.Namespace) -> int:
    """Run the download step in a temporary folder, then the preview step; return its exit code.

    Raises:
        InvalidInput: the Workspace has no tuning, or its rows are on a volume and ``--source`` is missing.
    """
    from workflows.compile import settings

    plan = _plan(args)
    download, preview = _download(plan, args), settings.preview(plan, args.rows)
    preview = preview.model_copy(update={"model": _local_model(plan)})
    with tempfile.TemporaryDirectory(prefix="argotune-preview-") as folder:
        return _run_step("download", download, folder) or _run_step("preview", preview, folder)


def _plan(args: argparse.Namespace) -> Plan:
    from workflows.load_plans import load_plans

    tuning = [plan for plan in load_plans(args.files, args.set, args.site, args.namespace) if plan.tuning]
    if len(tuning) != 1:
        message = "several Workspaces have `tuning`" if tuning else "no Workspace has `tuning`"
        raise InvalidInput(Problem(message, file=args.file, fix="pass a file with one Workspace that has `tuning`"))
    return tuning[0]


def _download(plan: Plan, args: argparse.Namespace) -> Options:
    from workflows.compile import settings

    download = settings.download(plan)
    if args.source:
        return download.model_copy(update={"source": Path(args.source), "urls": [], "image": ""})
    if download.source:
        raise InvalidInput(
            Problem("the rows are on a volume", "tuning.input.volumeSource", args.file, fix="pass --source FOLDER")
        )
    is_remote = bool(download.urls or any(named.urls for named in download.inputs))
    return download.model_copy(update={"sample": is_remote and not args.full})


def _local_model(plan: Plan) -> str:
    """Return the base model; a directory of the models volume as the local one that runs use."""
    from workflows.plan.model import MODELS
    from workflows.runner import volumes

    folder = volumes.home() / "volumes" / plan.storage.models_claim
    path = plan.model.repository
    return f"{folder}{path.removeprefix(MODELS)}" if path.startswith(f"{MODELS}/") else path


def _run_step(name: str, settings: Options, folder: str) -> int:
    """Run a step like its pod; return the exit code."""
    from workflows.compile.arguments import arguments

    args = arguments(settings.model_copy(update={"work": Path(folder)}))
    return subprocess.run([sys.executable, "-m", f"steps.{name}", *args], check=False).returncode
