"""``argotune logs``: prints the logs of a run on a cluster."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from steps.runtime import terminal
from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runs.status import RunStatus

EXAMPLES = """Examples:
  # Print the logs of all steps
  argotune logs oncall-x7k2m
  # Follow one step until it ends
  argotune logs oncall-x7k2m --step tune -f
  # Follow the newest run until it ends
  argotune logs @latest -f
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune logs``."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="Name of a run or a Workspace, or @latest")
    parser.add_argument("--step", default="", help="Print only this step, such as tune")
    parser.add_argument("-f", "--follow", action="store_true", help="Follow until the run or the step ends")
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the lines, prefixed with their step in brackets unless one step is selected.

    Raises:
        InvalidInput: the run or the step does not exist.
        ApiFailure: the request failed.
    """
    from workflows.cluster import connect, live, logs, lookup

    api = connect.connect(args)
    status = lookup.find_run(api, args.name)
    if args.step:
        _check_step(status, args.step)
    lock = threading.Lock()

    def on_line(label: str, line: str) -> None:
        with lock:
            print(terminal.escape(line if args.step else f"[{label}] {line}"), flush=True)

    def on_message(text: str) -> None:
        with lock:
            print(terminal.escape(text), file=sys.stderr, flush=True)

    if not args.follow:
        logs.print_logs(api, status, args.step, on_line, on_message)
        return 0
    try:
        ended = logs.follow(api, status.name, args.step, on_line, on_message)
    except KeyboardInterrupt:
        return live.print_detached(api, status.name)
    if ended.is_ended:
        on_message(f"{ended.name}: {ended.phase}{f': {ended.verdict}' if ended.verdict else ''}")
    return 0


def _check_step(run: RunStatus, name: str) -> None:
    steps = ", ".join(step.name for step in run.steps)
    if steps and run.step(name) is None:
        raise InvalidInput(Problem(f'{run.name} has no step "{name}"', "--step", fix=f"use one of {steps}"))
