"""``argotune ls``: lists the runs on a cluster in KAITO's columns."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.cluster.workflows_api import Scope, Workflows

EXAMPLES = """Examples:
  # List the runs of the namespace
  argotune ls
  # List the runs of all namespaces, with step, time and message
  argotune ls -A -o wide
  # List the runs of one Workspace
  argotune ls -l argotune.dev/workspace=oncall
  # Print a line for each change, until Ctrl-C
  argotune ls --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune ls``; those of ``argotune status`` are the same."""
    from workflows.cluster import connect

    parser.epilog = EXAMPLES
    parser.add_argument(
        "-o", "--output", choices=["wide", "json", "yaml", "name"], help="Output format (default: table)"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="Watch for changes")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="List runs of all namespaces")
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="Filter by labels, as in kubectl get -l"
    )
    connect.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List the runs, the newest first.

    Raises:
        ApiFailure: the cluster can't be request, or refuses.
    """
    import sys

    from workflows.cluster import connect, lookup
    from workflows.cluster.workflows_api import Scope
    from workflows.runs import table

    if args.watch and args.output in ("json", "yaml"):
        raise InvalidInput(Problem(f"--watch and -o {args.output}", fix="leave one out, or take -o wide or name"))
    api = connect.connect(args)
    scope = Scope(selector=args.selector, all_namespaces=args.all_namespaces)
    if args.watch:
        return _watch(api, scope, args.output)
    runs = lookup.newest_first(api, scope)
    if args.output in ("json", "yaml", "name"):
        print(table.format_runs(runs, args.output), end="")
    elif not runs:
        where = "any namespace" if scope.all_namespaces else f"namespace {api.namespace}"
        print(f"no runs in {where}", file=sys.stderr)
    else:
        form = {"wide": args.output == "wide", "all_namespaces": scope.all_namespaces}
        rows = [table.header(**form), *(table.row(one, table.now(), **form) for one in runs)]
        print("\n".join(table.lines(rows)))
    return 0


def refuse_many(args: argparse.Namespace, why: str) -> None:
    """Refuse the flags that choose among many runs."""
    given = [("--all-namespaces", args.all_namespaces), ("--selector", args.selector)]
    wrong = [Problem(f"{flag}: {why}", fix="leave one of them out") for flag, value in given if value]
    if wrong:
        raise InvalidInput(wrong)


def _watch(api: Workflows, scope: Scope, output: str | None) -> int:
    """A line for each run, then one for each change, as ``kubectl get --watch``; Ctrl-C is its end."""
    import sys

    from workflows.cluster import watch
    from workflows.cluster.read_run import read_run
    from workflows.runs import table

    form = {"wide": output == "wide", "all_namespaces": scope.all_namespaces}
    shown: dict[str, table.Row] = {}
    widths: list[int] = []
    try:
        for event in watch.changes(api, scope, lambda text: print(text, file=sys.stderr)):
            if event.kind not in ("ADDED", "MODIFIED"):
                continue
            one = read_run(event.object)
            row = (one.name,) if output == "name" else table.row(one, table.now(), **form)
            # Ages alone are no change.
            same = tuple(cell for place, cell in enumerate(row) if place != len(row) - 1 or output)
            if shown.get(f"{one.namespace}/{one.name}") == same:
                continue
            shown[f"{one.namespace}/{one.name}"] = same
            if output == "name":
                print(one.name, flush=True)
                continue
            if not widths:
                head = table.header(**form)
                widths = [width + 4 for width in table.widths_of([head, row])]
                print(table.lines([head], widths)[0], flush=True)
            print(table.lines([row], widths)[0], flush=True)
    except KeyboardInterrupt:
        return 0
    return 0
