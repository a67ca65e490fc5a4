"""Steps that a command runs on this machine, outside of a run: they read the rows of a Workspace."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
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

    path = plan.model.repository
    return f"{_models_folder(plan)}{path.removeprefix(MODELS)}" if path.startswith(f"{MODELS}/") else path


def model_environment(plan: Plan | None) -> dict[str, str]:
    """Return the environment of a step that needs the base model: its cache is that of runs, unless HF_HOME is set."""
    if "HF_HOME" in os.environ:
        return dict(os.environ)
    # huggingface_hub would search the login below HF_HOME.
    login = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "token"
    return {"HF_TOKEN_PATH": str(login), **os.environ, "HF_HOME": str(_models_folder(plan) / "huggingface")}


def run_step(name: str, settings: Options, folder: str, environment: Mapping[str, str] | None = None) -> int:
    """Run a step like its pod; return the exit code."""
    from workflows.compile.arguments import arguments

    args = arguments(settings.model_copy(update={"work": Path(folder)}))
    command = [sys.executable, "-m", f"steps.{name}", *args]
    return subprocess.run(command, env=environment, check=False).returncode


def _models_folder(plan: Plan | None) -> Path:
    """Return the local directory of the models volume."""
    from workflows.plan.model import Storage
    from workflows.runner import volumes

    return volumes.own_folder((plan.storage if plan else Storage()).models_claim)
