"""``argotune tune-bench``: measures how fast this machine tunes a Workspace, for ``argotune plan``."""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows.commands.argument_types import DEFAULT_PRESET

if TYPE_CHECKING:
    from steps.tune_bench.settings import Settings
    from workflows.plan.model import Plan

EPILOG = """Trains with the tune step for some seconds in each compute dtype, with the model, the settings and rows of
the Workspace, and keeps the result in $ARGOTUNE_HOME, for 'argotune plan'. Without a Workspace it measures a preset
with default settings and generated rows. It writes no adapter.

Examples:
  # Measure this machine with the smallest preset
  argotune tune-bench
  # Measure a Workspace, and estimate its hours
  argotune tune-bench workspace.yaml
  # Read the rows of a volume from a local folder
  argotune tune-bench workspace.yaml --source rows/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune tune-bench``."""
    from workflows.commands import compile as compiling
    from workflows.commands import local_steps

    parser.epilog = EPILOG
    compiling.add_arguments(parser, output=False, optional=True)
    parser.add_argument("--preset", metavar="NAME", help=f"Preset without a Workspace (default: {DEFAULT_PRESET})")
    parser.add_argument(
        "--seconds", type=_seconds, default=30, metavar="SECONDS", help="Measured time of training (default: 30)"
    )
    local_steps.add_row_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, keep the result and print speed, memory and hours; return the exit code of a step that failed.

    Raises:
        InvalidInput: the flags or the Workspace are invalid, or the rows are on a volume and ``--source`` is missing.
        ArgotuneError: the memory of this machine is too small.
    """
    from workflows.commands.local_steps import local_model, model_environment, run_step
    from workflows.estimate import measured_speed, show_local
    from workflows.runner import volumes

    _check_flags(args)
    plan = _plan(args) if args.file else None
    settings = _settings(plan, args)
    with tempfile.TemporaryDirectory(prefix="argotune-tune-bench-") as folder:
        if plan and (code := _download(plan, args, folder)):
            return code
        model = local_model(plan) if plan else settings.model
        measured = settings.model_copy(update={"model": model, "seconds": args.seconds})
        if code := run_step("tune_bench", measured, folder, model_environment(plan)):
            return code
        result = _result(Path(folder))
    if plan and _is_sampled(plan, args):
        result["rows"] = 0
    data = measured_speed.data_digest(plan) if plan else ""
    speed = measured_speed.write(volumes.home(), settings, result, data, datetime.now(UTC))
    print()
    print(show_local.as_text(speed, measured_speed.local_time(speed, plan) if plan else None))
    return 0


def _check_flags(args: argparse.Namespace) -> None:
    import presets
    from workflows.errors import InvalidInput, Problem

    problems = []
    if args.file and args.preset:
        problems.append(Problem("--preset cannot be combined with a Workspace", fix="remove --preset"))
    if not args.file:
        flags = {"--set": args.set, "--source": args.source, "--full": args.full}
        problems += [
            Problem(f"{flag} needs a Workspace", fix=f"pass a file, or remove {flag}")
            for flag, value in flags.items()
            if value
        ]
        try:
            presets.model(args.preset or DEFAULT_PRESET)
        except presets.UnknownPreset as error:
            problems.append(Problem(str(error), "--preset", fix="use a name that argotune presets lists"))
    if problems:
        raise InvalidInput(problems)


def _plan(args: argparse.Namespace) -> Plan:
    """Return the plan.

    Raises:
        ArgotuneError: the estimate of its memory exceeds that of this machine, which the measurement could bring down.
    """
    from steps.runtime import machine
    from steps.runtime.errors import InsufficientCapacity
    from workflows import estimate
    from workflows.commands.local_steps import load_tuning_plan
    from workflows.errors import from_step_error

    plan = load_tuning_plan(args, local=True)
    cuda = bool(machine.is_torch_built_with_cuda())
    for problem in estimate.memory_warnings(plan, machine.read(Path.cwd()), cuda=cuda):
        if problem.path == "tuning":
            raise from_step_error(InsufficientCapacity(f"{args.file}: {problem.message}", problem.fix))
    return plan


def _settings(plan: Plan | None, args: argparse.Namespace) -> Settings:
    import presets
    from steps.tune_bench.settings import Settings
    from workflows.compile import settings

    if plan:
        return settings.tune_bench(plan)
    facts = presets.model(args.preset or DEFAULT_PRESET)
    return Settings(
        work=Path(),
        preset=facts.name,
        model=facts.repository,
        revision=facts.revision,
        target_modules=list(facts.lora_targets),
    )


def _download(plan: Plan, args: argparse.Namespace, folder: str) -> int:
    from workflows.commands.local_steps import download_settings, run_step

    return run_step("download", download_settings(plan, args), folder)


def _is_sampled(plan: Plan, args: argparse.Namespace) -> bool:
    """Return True if only the first rows of remote files were read, so that their number is unknown."""
    from workflows.commands.local_steps import download_settings

    return bool(getattr(download_settings(plan, args), "sample", False))


def _result(work: Path) -> dict[str, Any]:
    from steps.runtime import entrypoint

    result: dict[str, Any] = json.loads(entrypoint.result_file(work, "tune_bench").read_text())["result"]
    return result


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 3600")
    return seconds
