"""``argotune logs``: prints the logs of a local run or a run on a cluster."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from steps.runtime import terminal
from workflows.commands import where
from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runner.local_logs import OnLine
    from workflows.runner.local_runs import LocalRun
    from workflows.runs.status import RunStatus

EXAMPLES = """Examples:
  # Print the logs of all steps of the newest run
  argotune logs
  # Follow one step until it ends
  argotune logs oncall-x7k2m --step tune -f
  # Follow the newest run until it ends
  argotune logs -f
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune logs``."""
    parser.epilog = EXAMPLES
    text = "Name or folder of a run, name of a Workspace, or @latest (default)"
    parser.add_argument("name", nargs="?", default="@latest", metavar="NAME", help=text)
    parser.add_argument("--step", default="", help="Print only this step, such as tune")
    parser.add_argument("-f", "--follow", action="store_true", help="Follow until the run or the step ends")
    where.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the lines, prefixed with their step in brackets unless one step is selected.

    Raises:
        InvalidInput: the run or the step does not exist.
        ApiFailure: the request failed.
    """
    from workflows.cluster import live, logs, lookup

    local = where.find_local(args)
    if local is None:
        api = where.connect_to_other(args)
    status = local.status if local else lookup.find_run(api, args.name)
    if args.step:
        _check_step(status, args.step)
    lock = threading.Lock()

    def on_line(label: str, line: str) -> None:
        with lock:
            print(terminal.escape(line if args.step else f"[{label}] {line}"), flush=True)

    def on_message(text: str) -> None:
        with lock:
            print(terminal.escape(text), file=sys.stderr, flush=True)

    if local:
        return _print_local(args, local, on_line, on_message)
    if not args.follow:
        logs.print_logs(api, status, args.step, on_line, on_message)
        return 0
    try:
        ended = logs.follow(api, status.name, args.step, on_line, on_message)
    except KeyboardInterrupt:
        return live.print_detached(api, status.name)
    if ended.is_ended:
        on_message(_format_end(ended))
    return 0


def _print_local(args: argparse.Namespace, run: LocalRun, on_line: OnLine, on_message: Callable[[str], None]) -> int:
    from workflows.errors import Cancelled
    from workflows.runner import local_logs

    if not args.follow:
        local_logs.print_logs(run, args.step, on_line)
        return 0
    try:
        ended = local_logs.follow(run, args.step, on_line)
    except KeyboardInterrupt:
        on_message(f"stopped following; {run.status.name} continues")
        return Cancelled.exit_code
    on_message(_format_end(ended))
    return 0


def _format_end(run: RunStatus) -> str:
    return f"{run.name}: {run.phase}{f': {run.verdict}' if run.verdict else ''}"


def _check_step(run: RunStatus, name: str) -> None:
    steps = ", ".join(step.name for step in run.steps)
    if steps and run.step(name) is None:
        raise InvalidInput(Problem(f'{run.name} has no step "{name}"', "--step", fix=f"use one of {steps}"))
