"""``argotune approve``: approves or rejects a suspended run on a cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runs.status import RunStatus
    from workflows.runs.step import Step

EXAMPLES = """Examples:
  # Approve: package the adapter and roll it out
  argotune approve oncall-x7k2m
  # Reject: roll out nothing
  argotune approve oncall-x7k2m --no
  # Set a parameter that the suspended step of another Workflow waits for
  argotune approve my-run -p reason=tested
"""
YES, NO = "YES", "NO"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune approve``."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="Name of a run or a Workspace, or @latest")
    parser.add_argument("--no", action="store_true", help="Reject instead of approving")
    parser.add_argument("--step", default="", help="Step to approve, if several are suspended")
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="Set a parameter of the suspended step",
    )
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Set the parameters that a suspended step waits for, and resume it.

    Raises:
        InvalidInput: no step or several steps are suspended, or a value is not allowed.
        ApiFailure: the request failed.
    """
    from workflows.cluster import connect, live, lookup
    from workflows.commands.run import pairs

    values = pairs(args.parameter, "-p")
    if values and args.no:
        raise InvalidInput(Problem("--no cannot be combined with -p", fix="pass one of them"))
    api = connect.connect(args)
    status = lookup.find_run(api, args.name)
    step = _suspended_step(status, args.step, live.namespace_flag(api))
    outputs = _outputs(step, values, NO if args.no else YES, f"{status.name} --cluster{live.namespace_flag(api)}")
    answer = ", ".join(f"{name}={value}" for name, value in outputs.items()) or "resumed"
    api.set_outputs(status.name, step.node, outputs, f"answered by argotune approve: {answer}")
    print(f"{status.name}: {step.key} answered: {answer}")
    return 0


def _suspended_step(run: RunStatus, name: str, namespace: str) -> Step:
    """Return the step to resume; ``namespace`` is the flag that selects the run's."""
    pending = [step for step in run.pending_approvals if not name or name == step.key]
    if len(pending) == 1:
        return pending[0]
    if pending:
        names = ", ".join(step.key for step in pending)
        message = f"several steps of {run.name} are suspended: {names}"
        raise InvalidInput(Problem(message, fix="select one with --step"))
    answered = next((step for step in run.steps if step.type == "Suspend" and name in ("", step.key)), None)
    if answered is not None:
        outputs = ", ".join(f"{key}={value}" for key, value in answered.outputs.items())
        message = f"{answered.key} of {run.name} is already answered{f': {outputs}' if outputs else ''}"
        raise InvalidInput(Problem(message, fix=f"see argotune status {run.name}{namespace}"))
    phase = "" if run.is_ended else f" (phase {run.phase})"
    raise InvalidInput(
        Problem(f"no step of {run.name} is suspended{phase}", fix=f"see argotune status {run.name}{namespace}")
    )


def _outputs(step: Step, values: dict[str, str], default: str, run: str) -> dict[str, str]:
    """Return a value for each parameter of the step; ``default`` (YES or NO) for those not in ``values``.

    ``run`` has the arguments of ``argotune stop``.
    """
    if not step.parameters:
        if values or default == NO:
            fix = f"resume it without flags, or end the run with argotune stop {run}"
            raise InvalidInput(Problem(f'step "{step.key}" has no parameters', fix=fix))
        return {}
    outputs = {name: values.get(name, default) for name in step.parameters}
    known = ", ".join(f'"{name}"' for name in step.parameters)
    problems = [
        Problem(f'-p {name}: step "{step.key}" has no parameter "{name}"', fix=f"use {known}")
        for name in values
        if name not in step.parameters
    ]
    for name, allowed in step.parameters.items():
        if allowed and outputs[name] not in allowed:
            message = f'{name}: "{outputs[name]}" is not allowed'
            problems.append(Problem(message, fix=f"use -p {name}={' or '.join(allowed)}"))
        elif not allowed and name not in values:
            problems.append(Problem(f'step "{step.key}" requires parameter "{name}"', fix=f"pass -p {name}=TEXT"))
    if problems:
        raise InvalidInput(problems)
    return outputs
