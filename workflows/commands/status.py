"""``argotune status``: shows the status of local runs and runs on a cluster."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from steps.runtime import terminal
from workflows.argo.exit_codes import FAILED
from workflows.commands import ls, where

if TYPE_CHECKING:
    from workflows.cluster.workflows_api import Workflows
    from workflows.runner.local_runs import LocalRun
    from workflows.runs.status import RunStatus

EXAMPLES = """Examples:
  # List the runs, as 'argotune ls'
  argotune status
  # Show one run and its steps
  argotune status oncall-x7k2m
  # Watch the newest run until it ends; the exit code is that of the run
  argotune status @latest --watch
  # Show also the GPU time by cause, and its price
  argotune status oncall-x7k2m -o wide
  # Print JSON with the outputs of each step
  argotune status oncall-x7k2m -o json

Columns:
  RESOURCEREADY   step provision has provisioned the nodes, and no pod waits for one
  INFERENCEREADY  step rollout serves the adapter
  WORKSPACEREADY  all steps have succeeded and no gate has failed
  Values are True, False, Unknown (undecided), or - (the run has no such step).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune status``."""
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="Name or folder of a run, a Workspace, or @latest (default: all)"
    )
    ls.add_arguments(parser)
    parser.epilog = EXAMPLES


def run(args: argparse.Namespace) -> int:
    """Show one run or all; with ``--watch`` on one run, return the exit code of the run.

    Raises:
        InvalidInput: the run does not exist.
        ApiFailure: the request failed.
    """
    from workflows.cluster import live, lookup
    from workflows.runs import table

    if not args.name:
        return ls.run(args)
    ls.reject_selection(args)
    if local := where.find_local(args):
        return _show_local(args, local)
    api = where.connect_to_other(args)
    status = lookup.find_run(api, args.name)
    if args.watch:
        return live.watch_to_completion(api, status.name)
    if args.output in ("json", "yaml", "name"):
        print(table.format_runs([status], args.output, single=True), end="")
    else:
        _print_run(api, status, wide=args.output == "wide")
    return 0


def _show_local(args: argparse.Namespace, run: LocalRun) -> int:
    """Show a local run; with ``--watch`` until its runner has ended."""
    from workflows.errors import Cancelled
    from workflows.runner import local_live
    from workflows.runs import result, table
    from workflows.runs.view import choose_view

    status = run.status
    if args.watch:
        try:
            status = local_live.show(run, choose_view())
        except KeyboardInterrupt:
            print(f"\nstopped watching; {status.name} continues", file=sys.stderr)
            return Cancelled.exit_code
        fix = {"fix": status.cause.fix} if status.cause and status.cause.fix else {}
        return result.print_verdict(status, fix) if status.is_ended else FAILED
    if args.output in ("json", "yaml", "name"):
        print(table.format_runs([status], args.output, single=True), end="")
        return 0
    _print_tables(status, wide=args.output == "wide")
    if status.verdict:
        print(
            terminal.escape("\n".join(filter(None, [f"{status.name}: {status.verdict}", _fix(status)]))),
            file=sys.stderr,
        )
    if run.report.is_file():
        print(f"report: {run.report}")
    return 0


def _print_tables(status: RunStatus, *, wide: bool) -> None:
    """Print the row of the run, its steps and its message."""
    from workflows.runs import table

    moment = table.now()
    rows = [table.header(wide=wide), table.row(status, moment, wide=wide)]
    print("\n".join(table.lines(rows)))
    if status.steps:
        print("\n" + "\n".join(table.lines([table.STEPS, *table.step_rows(status, moment)])))
    if wide and (gpu := table.gpu_rows(status, moment)):
        print("\n" + "\n".join(table.lines([table.GPU_TIME, *gpu])))
    if status.benchmark:
        print(f"\nbenchmark: {status.benchmark}")
    if status.message and not status.verdict and status.phase != "Succeeded":
        print(terminal.escape(f"{status.name}: {status.message}"), file=sys.stderr)


def _print_run(api: Workflows, status: RunStatus, *, wide: bool) -> None:
    """Print the tables of a run on a cluster, pending approvals and verdict."""
    from workflows.cluster import live, logs

    _print_tables(status, wide=wide)
    for step in status.pending_approvals:
        command = f"argotune approve {status.name}{live.namespace_flag(api)}"
        print(f"{step.key} is waiting for approval: {command}", file=sys.stderr)
    if status.verdict:
        print(terminal.escape(f"{status.name}: {status.verdict}"), file=sys.stderr)
        if status.phase != "Succeeded" and (lines := logs.tail_errors(api, status) or _fix(status)):
            print(terminal.escape(lines), file=sys.stderr)


def _fix(status: RunStatus) -> str:
    """Return the fix of the failed step, for a pod whose log is gone; empty if there is none."""
    return f"    fix: {status.cause.fix}" if status.cause and status.cause.fix else ""
