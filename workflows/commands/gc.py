"""``argotune gc``: the GPU nodes that runs have made on a cluster, and those that lost runs have left there."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidInput, Problem, from_step_error

if TYPE_CHECKING:
    from datetime import datetime

    from steps.provision.nodes import OrphanedNodes
    from steps.provision.settings import ClusterRef
    from workflows.cluster.orphaned_runs import Reasons

EXAMPLES = """Examples:
  # List the nodes that runs created; REASON is set if they are orphaned
  argotune gc
  # Delete orphaned nodes: their run is gone or has ended, or their lease has expired
  argotune gc --yes
  # Delete nodes by name, Workflow or uid of the run, whatever their lease
  argotune gc at1f0c9b2a3d --yes

The site profile (nodes:) selects the cluster; provider aks uses the credentials of 'az login'. Runs are looked up
with $KUBECONFIG. If it selects another cluster or cannot read Workflows, only the lease counts. Deleting waits until
the nodes are gone. A stopped run releases its nodes automatically.
"""
COLUMNS = ("NAME", "WORKSPACE", "SIZE", "NODES", "STATE", "AGE", "LEASE", "REASON")
WIDE = ("PROVIDER", "NAMESPACE", "WORKFLOW", "RUN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of ``argotune gc``."""
    from workflows.commands import compile as compiling

    parser.epilog = EXAMPLES
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="Name of nodes, or Workflow or uid of a run (default: all)"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="Delete orphaned nodes, or the named ones")
    parser.add_argument(
        "-o", "--output", choices=["wide", "json", "yaml", "name"], help="Output format (default: table)"
    )
    compiling.add_site(parser)


def run(args: argparse.Namespace) -> int:
    """List what runs have made, and with ``--yes`` delete what is named, else what no run owns any more.

    Raises:
        InvalidInput: the site profile is wrong, or a name is of nothing that is there.
        ArgotuneError: the cluster can't be request, or something could not be deleted.
    """
    from steps.provision import node_providers
    from steps.runtime.errors import StepError
    from workflows.cluster import orphaned_runs
    from workflows.plan import site
    from workflows.runs import table

    place = place_of(site.load(args.site))
    if place.provider not in node_providers.CREATING_PROVIDERS:
        providers = " or ".join(node_providers.CREATING_PROVIDERS)
        fix = f"nodes: {{provider: {providers}}} in the site profile, if they should"
        print(f"runs make no nodes here (provider {place.provider}); {fix}", file=sys.stderr)
        return 0
    provider = node_providers.provider(place.provider)
    try:
        there: list[OrphanedNodes] = provider.list_orphans(place)
        chosen = named(there, args.names) if args.names else there
        if args.names and args.yes:
            return _delete(provider, place, chosen)
        reasons = orphaned_runs.reasons(provider, place, chosen, table.now())
        for what in reasons.unknown:
            print(f"only leases tell what is left behind: {what}", file=sys.stderr)
        over = chosen if args.names else [found for found in chosen if reasons.of(found)]
        if not args.yes:
            show(chosen, reasons, args.output, table.now())
            if over and args.output is None:
                print(f"--yes deletes {', '.join(found.name for found in over)}", file=sys.stderr)
            return 0
    except StepError as error:
        raise from_step_error(error) from None
    return _delete(provider, place, over)


def place_of(profile: dict[str, Any]) -> ClusterRef:
    """The cluster that the site profile names."""
    from steps.provision.settings import ClusterRef

    keys = {"provider": "provider", "subscription": "subscription", "resourceGroup": "resource_group"}
    keys["cluster"] = "cluster"
    given = {field: profile[f"nodes.{key}"] for key, field in keys.items() if f"nodes.{key}" in profile}
    return ClusterRef(**given)


def named(there: list[OrphanedNodes], names: list[str]) -> list[OrphanedNodes]:
    """What is meant by names, in the order of the names.

    Raises:
        InvalidInput: with every name of nothing that is there.
    """
    found = {name: [one for one in there if name in (one.name, one.workflow, one.run)] for name in names}
    known = ", ".join(one.name for one in there) or "nothing"
    if problems := [Problem(f"no nodes of {name!r}", fix=f"there is: {known}") for name in names if not found[name]]:
        raise InvalidInput(problems)
    return list(dict.fromkeys(one for ones in found.values() for one in ones))


def show(found: list[OrphanedNodes], reasons: Reasons, output: str | None, moment: datetime) -> None:
    """Print what is there, as a table or as data."""
    from workflows.runs import table

    if output == "name":
        print("".join(f"{one.name}\n" for one in found), end="")
    elif output == "json":
        print(json.dumps([_data(one, reasons.of(one)) for one in found], indent=2))
    elif output == "yaml":
        import yaml

        print(yaml.safe_dump([_data(one, reasons.of(one)) for one in found], sort_keys=False), end="")
    elif not found:
        print("no nodes of runs are there", file=sys.stderr)
    else:
        wide = output == "wide"
        rows = [(*COLUMNS, *(WIDE if wide else ())), *(_row(one, reasons.of(one), moment, wide=wide) for one in found)]
        print("\n".join(table.lines(rows)))


def _row(one: OrphanedNodes, reason: str, moment: datetime, *, wide: bool) -> tuple[str, ...]:
    from workflows.runs.table import format_duration

    age = format_duration(moment - one.made) if one.made else "-"
    lease = "-"
    if one.lease_until and one.expired(moment):
        lease = f"over {format_duration(moment - one.lease_until)}"
    elif one.lease_until:
        lease = format_duration(one.lease_until - moment)
    more = (one.provider, one.namespace or "-", one.workflow or "-", one.run) if wide else ()
    return (one.name, one.workspace or "-", one.size, str(one.nodes), one.state, age, lease, reason or "-", *more)


def _data(one: OrphanedNodes, reason: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "provider": one.provider,
        "workspace": one.workspace,
        "namespace": one.namespace,
        "workflow": one.workflow,
        "run": one.run,
        "size": one.size,
        "nodes": one.nodes,
        "state": one.state,
        "made": one.made.isoformat() if one.made else None,
        "leaseUntil": one.lease_until.isoformat() if one.lease_until else None,
        "leftBehind": bool(reason),
        "reason": reason,
    }


def _delete(provider: Any, place: ClusterRef, found: list[OrphanedNodes]) -> int:
    """Delete all that can be; what can't is told at the end of its turn, and by the exit code."""
    from steps.runtime.errors import StepError

    code = 0
    for one in found:
        try:
            provider.remove(place, one)
            print(f"deleted {one.name} of {one.workflow or one.run}", flush=True)
        except StepError as error:
            print(f"error: {error}", file=sys.stderr)
            code = max(code, error.exit_code)
    if not found:
        print("nothing is left behind", file=sys.stderr)
    return code
