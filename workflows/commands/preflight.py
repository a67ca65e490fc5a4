"""``argotune preflight``: asks from here what a run will need, as the first step of the run will from there."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from workflows.errors import ArgotuneError

if TYPE_CHECKING:
    from steps.preflight import Settings
    from workflows.plan import Plan

EPILOG = """The data must answer and be parquet, the registry must take a push, the hub must show the model.
Asked with what you are here: docker login, HF_TOKEN, az login. 'argotune validate --cluster' looks up Secrets,
claims and accounts; --cluster here adds quotas of the namespace and of Azure.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune preflight``."""
    from workflows.commands import compile as compiling

    compiling.add_arguments(parser, output=False)
    parser.epilog = EPILOG
    parser.add_argument("--cluster", action="store_true", help="ask the cluster of the kubeconfig, and its cloud, too")


def run(args: argparse.Namespace) -> int:
    """Ask everything for each Workspace of the file; all its faults are told at once.

    Raises:
        InvalidInput: the file, a flag or the site profile is wrong.
        ArgotuneError: with the step's own exit code, when something speaks against a run.
    """
    from steps.errors import StepError
    from steps.preflight import preflight
    from workflows.resolve import plans

    failed: list[StepError] = []
    for plan in plans(args.file, args.set, args.site, args.namespace):
        try:
            print(preflight(settings(plan, in_cluster=args.cluster)).summary)
        except StepError as error:
            failed.append(error)
    if failed:
        raise _failure(failed)
    return 0


def settings(plan: Plan, *, in_cluster: bool) -> Settings:
    """Those of the compiled step, without the folders that only its pod has."""
    from steps import preflight, step
    from workflows.compile.dag import compile_workflow
    from workflows.compile.preflight import preflight as template

    spec = compile_workflow(plan)["spec"]
    parameters = spec.get("arguments", {}).get("parameters", [])
    values = {f"{{{{inputs.parameters.{item['name']}}}}}": item["value"] for item in parameters}
    words: list[str] = list(template(plan).args or [])
    pairs = [(flag, values.get(value, value)) for flag, value in zip(words[::2], words[1::2], strict=True)]
    here = [("--work", ".") if flag == "--work" else (flag, value) for flag, value in pairs if _is_here(flag, value)]
    given = [*here, ("--in-cluster", str(in_cluster).lower())]
    parsed: Settings = step.parse(preflight.Settings, [word for pair in given for word in pair], "preflight")
    return parsed


def _is_here(flag: str, value: str) -> bool:
    return flag == "--work" or not value.startswith("/mnt/") or flag == "--model"


def _failure(failed: list[Any]) -> ArgotuneError:
    """As one error of the command line, with the exit code of the worst."""
    from steps.preflight import together

    error = together(failed)
    told = ArgotuneError(str(error))
    told.exit_code = error.exit_code
    return told
