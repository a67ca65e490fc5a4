"""Rules for fallback nodes (``pipeline.nodes``)."""

from __future__ import annotations

from presets import Sku, UnknownSku, find_sku
from workflows.field_path import join
from workflows.spec import resource_rules
from workflows.spec.findings import Findings
from workflows.spec.workspace import Workspace

SIZES = "pipeline.nodes.fallbackInstanceTypes"


def check(workspace: Workspace, machine: Sku | None, findings: Findings) -> None:
    """Report fallback instance types that cannot replace the requested one, and duplicates."""
    nodes = workspace.pipeline.nodes
    requested = workspace.resource.instance_type if workspace.resource else ""
    if nodes.fallback_instance_types and not requested:
        findings.error(SIZES, "requires resource.instanceType", "move the first entry there")
    seen = {requested.lower()}
    for index, name in enumerate(nodes.fallback_instance_types):
        if name.lower() in seen:
            findings.error(join(SIZES, index), f"{name} is a duplicate", "remove it")
        else:
            _size(name, join(SIZES, index), machine, findings)
        seen.add(name.lower())
    if len(set(nodes.zones)) < len(nodes.zones):
        findings.error("pipeline.nodes.zones", "has a duplicate zone", "remove it")


def _size(name: str, path: str, machine: Sku | None, findings: Findings) -> None:
    try:
        other = find_sku(name)
    except UnknownSku as error:
        near = (
            f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml lists the supported types"
        )
        findings.error(path, f"Unsupported instance type {name}", near)
        return
    if other is None:
        resource_rules.warn_unlisted(name, path, findings)
    elif machine and other.gpus < machine.gpus:
        what = f"{other.name} has {other.gpus} GPUs, but the pods request the {machine.gpus} of {machine.name}"
        findings.error(path, what, f"use an instance type with at least {machine.gpus} GPUs")
    elif machine and bool(other.compute_capability) != bool(machine.compute_capability):
        findings.error(
            path,
            f"{other.name} has {other.gpu}, and {machine.name} {machine.gpu}",
            "use an instance type with the same kind of GPU",
        )
    elif other.retired:
        findings.warn(path, f"{other.name} is retired: new nodes are rarely available", f"write {other.successor}")
