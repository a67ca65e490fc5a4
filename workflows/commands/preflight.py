"""``argotune preflight``: runs the checks of a run's first step from this machine."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.errors import from_step_error

if TYPE_CHECKING:
    from steps.preflight.settings import Settings
    from steps.runtime.errors import StepError
    from workflows.load_plans import LoadedPlan
    from workflows.plan.model import Plan

SECTIONS = {
    "training_arguments": "TrainingArguments",
    "lora_config": "LoraConfig",
    "quantization_config": "QuantizationConfig",
}
"""Sections of KAITO's training_config.yaml by the setting of the step."""

EPILOG = """Checks that the data is reachable and has a supported format, that the registry accepts a push and that the
model is accessible, with your credentials: docker login, HF_TOKEN, az login. --cluster also checks the quotas of the
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
    """Run all checks for each Workspace of the file; report all failures together.

    Raises:
        InvalidInput: the file, a flag or the site profile is invalid.
        ArgotuneError: a check failed; with the exit code of the step.
    """
    from steps.preflight.step import preflight
    from steps.runtime.errors import StepError, combine_errors
    from workflows.cluster import config_maps
    from workflows.load_plans import load_with_manifests

    failed: list[StepError] = []
    lookup = config_maps.lookup(args) if args.cluster else None
    for loaded in load_with_manifests(args.files, args.set, args.site, args.namespace, lookup=lookup):
        failed += _training_errors(loaded)
        try:
            print(preflight(settings(loaded.plan, in_cluster=args.cluster)).summary)
        except StepError as error:
            failed.append(error)
    if failed:
        raise from_step_error(combine_errors(failed))
    return 0


def _training_errors(loaded: LoadedPlan) -> list[StepError]:
    """Return the settings of the training that its libraries reject, with file and line."""
    from steps.runtime.errors import BadInput
    from workflows.compile import settings as compiled
    from workflows.errors import Problem
    from workflows.load_plans import with_location

    if not compiled.needs_dryrun(loaded.plan):
        return []
    if importlib.util.find_spec("trl") is None:
        print("not checked: the settings of the training (trl is not installed; the step dryrun checks them)")
        return []
    from steps.models.model import choose_device, prepare_libraries
    from steps.tune import rehearsal

    prepare_libraries()
    options = compiled.dryrun(loaded.plan)
    errors = rehearsal.find_errors(options, "cuda" if options.gpus else choose_device())
    problems = [
        Problem(error.message, f"training_config.{SECTIONS[error.section]}.{error.key}".rstrip("."), fix=error.fix)
        for error in errors
    ]
    located = with_location(loaded.manifest, problems)
    return [
        BadInput(f"{problem.file}:{problem.line}: {problem.path}: {problem.message}", problem.fix)
        for problem in located
    ]


def settings(plan: Plan, *, in_cluster: bool) -> Settings:
    """Return the settings of the compiled step, without the directories that only its pod has."""
    from workflows.compile import settings as compiled

    mounted = ("source", "pull_config", "output", "adapter_config")
    local: dict[str, Any] = {**dict.fromkeys(mounted), "work": Path(), "in_cluster": in_cluster}
    return compiled.preflight(plan).model_copy(update=local)
