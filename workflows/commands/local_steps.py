"""Steps that a command runs on this machine, outside of a run: they read the rows of a Workspace."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from steps.runtime.options import Options
    from workflows.plan.model import Plan


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of commands that read the rows of a Workspace."""
    parser.add_argument("--full", action="store_true", help="Read whole remote files, not only their first rows")
    parser.add_argument("--source", metavar="FOLDER", help="Read the data files from this folder")


def load_tuning_plan(args: argparse.Namespace, *, local: bool = False) -> Plan:
    """Return the plan of the file's Workspace; ``local``: for this machine, not for its instance type.

    Raises:
        InvalidInput: not exactly one Workspace has `tuning`.
    """
    from workflows.load_plans import load_plans

    plans = load_plans(args.files, args.set, args.site, args.namespace, local=local)
    tuning = [plan for plan in plans if plan.tuning]
    if len(tuning) != 1:
        message = "several Workspaces have `tuning`" if tuning else "no Workspace has `tuning`"
        raise InvalidInput(Problem(message, file=args.file, fix="pass a file with one Workspace that has `tuning`"))
    return tuning[0]


def download_settings(plan: Plan, args: argparse.Namespace) -> Options:
    """Return the settings of the download step; remote files are sampled unless ``--full`` is set.

    Raises:
        InvalidInput: the rows are on a volume, and ``--source`` is missing.
    """
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


def local_model(plan: Plan) -> str:
    """Return the base model; a directory of the models volume as the local one that runs use."""
    from workflows.plan.model import MODELS
    from workflows.runner import volumes

    folder = volumes.home() / "volumes" / plan.storage.models_claim
    path = plan.model.repository
    return f"{folder}{path.removeprefix(MODELS)}" if path.startswith(f"{MODELS}/") else path


def run_step(name: str, settings: Options, folder: str) -> int:
    """Run a step like its pod; return the exit code."""
    from workflows.compile.arguments import arguments

    args = arguments(settings.model_copy(update={"work": Path(folder)}))
    return subprocess.run([sys.executable, "-m", f"steps.{name}", *args], check=False).returncode
