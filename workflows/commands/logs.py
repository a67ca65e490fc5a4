"""``argotune logs``: prints the logs of a run on a cluster."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

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
    parser.add_argument("name", metavar="NAME", help="Name of a run, or @latest")
    parser.add_argument("--step", default="", help="Print only this step, such as tune")
    parser.add_argument("-f", "--follow", action="store_true", help="Follow until the run or the step ends")
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the lines, each after its step in brackets unless one step is asked for.

    Raises:
        InvalidInput: there is no such run, or no such step in it.
        ApiFailure: the cluster can't be request, or refuses.
    """
    from workflows.cluster import connect, live, logs, lookup

    api = connect.connect(args)
    found = lookup.find(api, args.name)
    if args.step:
        _check_step(found, args.step)
    lock = threading.Lock()

    def emit(label: str, line: str) -> None:
        with lock:
            print(line if args.step else f"[{label}] {line}", flush=True)

    def tell(text: str) -> None:
        with lock:
            print(text, file=sys.stderr, flush=True)

    if not args.follow:
        logs.print_logs(api, found, args.step, emit, tell)
        return 0
    try:
        ended = logs.follow(api, found.name, args.step, emit, tell)
    except KeyboardInterrupt:
        return live.print_detached(api, found.name)
    if ended.is_ended:
        tell(f"{ended.name}: {ended.phase}{f': {ended.verdict}' if ended.verdict else ''}")
    return 0


def _check_step(found: RunStatus, step: str) -> None:
    known = [one.key.removeprefix("onExit.") for one in found.steps]
    if known and found.step(step) is None:
        raise InvalidInput(Problem(f"{found.name} has no step {step}", "--step", fix=f"one of {', '.join(known)}"))
