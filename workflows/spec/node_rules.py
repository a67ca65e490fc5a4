"""What must hold for the other nodes that would do (``pipeline.nodes``)."""

from __future__ import annotations

from presets import Sku, UnknownSku, sku
from workflows.spec.findings import Findings
from workflows.spec.source import join
from workflows.spec.workspace import Workspace

SIZES = "pipeline.nodes.fallbackInstanceTypes"


def check(workspace: Workspace, machine: Sku | None, found: Findings) -> None:
    """Note sizes that can't stand in for the one asked for, and what stands twice."""
    nodes = workspace.pipeline.nodes
    asked = workspace.resource.instance_type if workspace.resource else ""
    if nodes.fallback_instance_types and not asked:
        found.wrong(SIZES, "there is no resource.instanceType to fall back from", "move the first of them there")
    seen = {asked.lower()}
    for index, name in enumerate(nodes.fallback_instance_types):
        if name.lower() in seen:
            found.wrong(join(SIZES, index), f"{name} stands twice", "leave it out")
        else:
            _size(name, join(SIZES, index), machine, found)
        seen.add(name.lower())
    if len(set(nodes.zones)) < len(nodes.zones):
        found.wrong("pipeline.nodes.zones", "a zone stands twice", "leave it out")


def _size(name: str, path: str, machine: Sku | None, found: Findings) -> None:
    try:
        other = sku(name)
    except UnknownSku as error:
        near = f"did you mean {', '.join(error.near)}?" if error.near else "presets/skus.yaml has those KAITO knows"
        found.wrong(path, f"Unsupported instance type {name}", near)
        return
    if machine and other.gpus < machine.gpus:
        what = f"{other.name} has {other.gpus} GPUs, and the pods ask for the {machine.gpus} of {machine.name}"
        found.wrong(path, what, "write a size with as many GPUs")
    elif machine and bool(other.compute_capability) != bool(machine.compute_capability):
        found.wrong(path, f"{other.name} has {other.gpu}, and {machine.name} {machine.gpu}", "write one of its kind")
    elif other.retired:
        found.warn(path, f"{other.name} is retired: new nodes of it can hardly be had", f"write {other.successor}")
