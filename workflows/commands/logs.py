"""``argotune logs``: what the steps of a run on a cluster write."""

from __future__ import annotations

import argparse
import sys
import threading
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.runs.status import RunStatus

EXAMPLES = """examples:
  argotune logs oncall-x7k2m                    all steps, one after the other
  argotune logs oncall-x7k2m --step tune -f     tuning, as it goes on; ends with the step
  argotune logs @latest -f                      all steps as they run, until the run ends
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune logs``."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument("name", metavar="NAME", help="a run, or @latest")
    parser.add_argument("--step", default="", help="only of this step, such as tune")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run, or the step, has ended")
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
