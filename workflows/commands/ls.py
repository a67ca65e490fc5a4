"""``argotune ls``: lists local runs and runs on a cluster in KAITO's columns."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from workflows.commands import where
from workflows.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from workflows.cluster.workflows_api import Scope, Workflows
    from workflows.runs.status import RunStatus

EXAMPLES = """Examples:
  # List the runs of this folder and of the cluster's namespace
  argotune ls
  # List only the runs on the cluster
  argotune ls --cluster
  # List the runs of all namespaces, with step, time and message
  argotune ls -A -o wide
  # List the runs of one Workspace
  argotune ls -l argotune.dev/workspace=oncall
  # Print a line for each change, until Ctrl-C
  argotune ls --watch
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune ls``; those of ``argotune status`` are the same."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "-o", "--output", choices=["wide", "json", "yaml", "name"], help="Output format (default: table)"
    )
    parser.add_argument("-w", "--watch", action="store_true", help="Watch for changes (cluster)")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="List runs of all namespaces")
    parser.add_argument(
        "-l", "--selector", default="", metavar="LABELS", help="Filter by labels, as in kubectl get -l"
    )
    where.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """List the runs, the newest first.

    Raises:
        ApiFailure: the request failed; the local runs are listed.
    """
    from workflows.cluster import connect

    if args.watch and args.output in ("json", "yaml"):
        raise InvalidInput(Problem(f"--watch cannot be combined with -o {args.output}", fix="use -o wide or name"))
    if args.watch:
        return _watch(connect.connect(args), _scope(args), args.output)
    if where.is_cluster_only(args) or args.all_namespaces or args.selector:
        api = connect.connect(args)
        place = "any namespace" if args.all_namespaces else _with_hint(f"namespace {api.namespace}")
        _print_runs(args, _list(api, args), place, mixed=False)
        return 0
    return _list_all(args)


def _list_all(args: argparse.Namespace) -> int:
    """List local runs and those on the cluster; a cluster is not required if there are local runs."""
    from workflows.cluster import connect
    from workflows.cluster.failures import ApiFailure
    from workflows.cluster.kubernetes_api import NoKubeconfig
    from workflows.runner import local_runs

    local = [run.status for run in local_runs.list_runs(Path(args.runs_dir))]
    try:
        api = connect.connect(args)
    except NoKubeconfig as error:
        _print_runs(args, local, f"{where.show(args.runs_dir)}; no cluster: {error.file} not found", mixed=True)
        return 0
    except InvalidInput:
        if not local:
            raise
        _print_runs(args, local, "", mixed=True)
        return 0
    try:
        runs = [*local, *_list(api, args)]
    except ApiFailure:
        if local:
            _print_runs(args, local, "", mixed=True)
        raise
    runs.sort(key=lambda run: str(run.created), reverse=True)
    _print_runs(args, runs, _with_hint(f"{where.show(args.runs_dir)} and namespace {api.namespace}"), mixed=True)
    return 0


def _with_hint(location: str) -> str:
    return f"{location}; list all namespaces with -A"


def _list(api: Workflows, args: argparse.Namespace) -> list[RunStatus]:
    from workflows.cluster import lookup

    return lookup.list_runs(api, _scope(args))


def _scope(args: argparse.Namespace) -> Scope:
    from workflows.cluster.workflows_api import Scope

    return Scope(selector=args.selector, all_namespaces=args.all_namespaces)


def _print_runs(args: argparse.Namespace, runs: list[RunStatus], location: str, *, mixed: bool) -> None:
    """Print runs in the format of the flags; ``mixed`` adds the column WHERE."""
    import sys

    from workflows.runs import table

    if args.output in ("json", "yaml", "name"):
        print(table.format_runs(runs, args.output), end="")
    elif not runs:
        print(f"no runs in {location}", file=sys.stderr)
    else:
        form = {"wide": args.output == "wide", "all_namespaces": args.all_namespaces, "where": mixed}
        rows = [table.header(**form), *(table.row(item, table.now(), **form) for item in runs)]
        print("\n".join(table.lines(rows)))


def reject_selection(args: argparse.Namespace) -> None:
    """Reject the flags that select several runs when a run is named."""
    flags = [("--all-namespaces", args.all_namespaces), ("--selector", args.selector)]
    fix = "pass one of them"
    problems = [Problem(f"{flag} cannot be combined with NAME", fix=fix) for flag, value in flags if value]
    if problems:
        raise InvalidInput(problems)


def _watch(api: Workflows, scope: Scope, output: str | None) -> int:
    """Print a line for each run, then for each change, as ``kubectl get --watch``, until Ctrl-C."""
    import sys

    from workflows.cluster import watch
    from workflows.cluster.read_run import read_run
    from workflows.runs import table

    form = {"wide": output == "wide", "all_namespaces": scope.all_namespaces}
    shown: dict[str, table.Row] = {}
    widths: list[int] = []
    try:
        for event in watch.watch_changes(api, scope, lambda text: print(text, file=sys.stderr)):
            if event.kind not in ("ADDED", "MODIFIED"):
                continue
            item = read_run(event.object)
            row = (item.name,) if output == "name" else table.row(item, table.now(), **form)
            # A new age alone is not a change; in the short table it is the last column.
            content = row if output else row[:-1]
            if shown.get(f"{item.namespace}/{item.name}") == content:
                continue
            shown[f"{item.namespace}/{item.name}"] = content
            if output == "name":
                print(item.name, flush=True)
                continue
            if not widths:
                head = table.header(**form)
                widths = [width + 4 for width in table.widths_of([head, row])]
                print(table.lines([head], widths)[0], flush=True)
            print(table.lines([row], widths)[0], flush=True)
    except KeyboardInterrupt:
        return 0
    return 0
