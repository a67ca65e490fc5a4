"""``argotune gc``: lists the GPU nodes that runs created on a cluster, and deletes orphaned ones."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from workflows.errors import InvalidInput, Problem, from_step_error, use_one_of

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
    """List the nodes that runs created; with ``--yes`` delete the named or the orphaned ones.

    Raises:
        InvalidInput: the site profile is invalid, or a name matches no nodes.
        ArgotuneError: a request failed.
    """
    from steps.provision import node_providers
    from steps.runtime import terminal
    from steps.runtime.errors import StepError
    from workflows.cluster import orphaned_runs
    from workflows.plan import site
    from workflows.runs import table

    cluster_ref = cluster_from_profile(site.load(args.site))
    if cluster_ref.provider not in node_providers.CREATING_PROVIDERS:
        providers = " or ".join(node_providers.CREATING_PROVIDERS)
        fix = f"to change that, set nodes: {{provider: {providers}}} in the site profile"
        print(f"runs create no nodes with provider {cluster_ref.provider}; {fix}", file=sys.stderr)
        return 0
    provider = node_providers.provider(cluster_ref.provider)
    try:
        existing: list[OrphanedNodes] = provider.list_orphans(cluster_ref)
        selected = select(existing, args.names) if args.names else existing
        if args.names and args.yes:
            return _delete(provider, cluster_ref, selected)
        reasons = orphaned_runs.find_reasons(provider, cluster_ref, selected, table.now())
        for message in reasons.failed_lookups:
            print(terminal.escape(f"cannot look up runs, only leases count: {message}"), file=sys.stderr)
        orphaned = selected if args.names else [nodes for nodes in selected if reasons.reason(nodes)]
        if not args.yes:
            show(selected, reasons, args.output, table.now())
            if orphaned and args.output is None:
                names = ", ".join(nodes.name for nodes in orphaned)
                print(terminal.escape(f"--yes deletes {names}"), file=sys.stderr)
            return 0
    except StepError as error:
        raise from_step_error(error) from None
    return _delete(provider, cluster_ref, orphaned)


def cluster_from_profile(profile: dict[str, Any]) -> ClusterRef:
    """Return the cluster of the site profile."""
    from steps.provision.settings import ClusterRef

    keys = {"provider": "provider", "subscription": "subscription", "resourceGroup": "resource_group"}
    keys["cluster"] = "cluster"
    values = {field: profile[f"nodes.{key}"] for key, field in keys.items() if f"nodes.{key}" in profile}
    return ClusterRef(**values)


def select(existing: list[OrphanedNodes], names: list[str]) -> list[OrphanedNodes]:
    """Return the nodes of the names, in the order of the names.

    Raises:
        InvalidInput: with every name that matches no nodes.
    """
    matches = {
        name: [nodes for nodes in existing if name in (nodes.name, nodes.workflow, nodes.run)] for name in names
    }
    fix = use_one_of((nodes.name for nodes in existing), "omit it: no run has nodes")
    if problems := [Problem(f'nodes "{name}" not found', fix=fix) for name in names if not matches[name]]:
        raise InvalidInput(problems)
    return list(dict.fromkeys(nodes for items in matches.values() for nodes in items))


def show(items: list[OrphanedNodes], reasons: Reasons, output: str | None, moment: datetime) -> None:
    """Print nodes as a table or as data."""
    from steps.runtime import terminal
    from workflows.runs import table

    if output == "name":
        print(terminal.escape("".join(f"{nodes.name}\n" for nodes in items)), end="")
    elif output == "json":
        print(json.dumps([_data(nodes, reasons.reason(nodes)) for nodes in items], indent=2))
    elif output == "yaml":
        import yaml

        print(yaml.safe_dump([_data(nodes, reasons.reason(nodes)) for nodes in items], sort_keys=False), end="")
    elif not items:
        print("no nodes created by runs", file=sys.stderr)
    else:
        wide = output == "wide"
        rows = [(*COLUMNS, *(WIDE if wide else ()))]
        rows += [_row(nodes, reasons.reason(nodes), moment, wide=wide) for nodes in items]
        print("\n".join(table.lines(rows)))


def _row(nodes: OrphanedNodes, reason: str, moment: datetime, *, wide: bool) -> tuple[str, ...]:
    from workflows.runs.table import format_duration

    age = format_duration(moment - nodes.created) if nodes.created else "-"
    lease = "-"
    if nodes.lease_until and nodes.expired(moment):
        lease = f"over {format_duration(moment - nodes.lease_until)}"
    elif nodes.lease_until:
        lease = format_duration(nodes.lease_until - moment)
    more = (nodes.provider, nodes.namespace or "-", nodes.workflow or "-", nodes.run) if wide else ()
    row = (nodes.name, nodes.workspace or "-", nodes.size, str(nodes.nodes), nodes.state, age, lease, reason or "-")
    return (*row, *more)


def _data(nodes: OrphanedNodes, reason: str) -> dict[str, Any]:
    return {
        "name": nodes.name,
        "provider": nodes.provider,
        "workspace": nodes.workspace,
        "namespace": nodes.namespace,
        "workflow": nodes.workflow,
        "run": nodes.run,
        "size": nodes.size,
        "nodes": nodes.nodes,
        "state": nodes.state,
        "made": nodes.created.isoformat() if nodes.created else None,
        "leaseUntil": nodes.lease_until.isoformat() if nodes.lease_until else None,
        "leftBehind": bool(reason),
        "reason": reason,
    }


def _delete(provider: Any, cluster_ref: ClusterRef, items: list[OrphanedNodes]) -> int:
    """Delete nodes; a failure is printed and sets the exit code, and the others are deleted."""
    from steps.runtime import terminal
    from steps.runtime.errors import StepError

    code = 0
    for nodes in items:
        try:
            provider.remove(cluster_ref, nodes)
            print(terminal.escape(f"deleted {nodes.name} of {nodes.workflow or nodes.run}"), flush=True)
        except StepError as error:
            print(terminal.escape(f"error: {error}"), file=sys.stderr)
            code = max(code, error.exit_code)
    if not items:
        print("no orphaned nodes", file=sys.stderr)
    return code
