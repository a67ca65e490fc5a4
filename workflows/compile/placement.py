"""On which nodes the pods that compute run, and what provision and release are told of them.

Nodes that are made for a run carry its uid as a label, and its pods select them by that alone: a fallback is as good
as the size that was asked for. Nodes that are there, or that an autoscaler brings, are selected by their size.
"""

from __future__ import annotations

from hera.workflows import models as m

from steps.provision.node_providers import RUN_LABEL
from workflows.compile.settings import UID, instance_types
from workflows.plan.model import Plan
from workflows.plan.nodes import provisions_nodes

SIZE = "node.kubernetes.io/instance-type"
# What says that a node is spot capacity: of AKS pools, of Karpenter's nodes.
SPOT = {"kubernetes.azure.com/scalesetpriority": "spot", "karpenter.sh/capacity-type": "spot"}
# Of a preference; spot is more than any size: cheap first, then the order of the sizes. Nodes by name break ties.
SPOT_WEIGHT, FIRST_SIZE_WEIGHT, NODE_WEIGHT = 100, 50, 10


def selector(plan: Plan) -> dict[str, str]:
    """Node labels that must match."""
    labels = dict(plan.resource.labels)
    if provisions_nodes(plan):
        labels[RUN_LABEL] = UID
    elif plan.resource.instance_type and not plan.nodes.fallback_instance_types:
        labels[SIZE] = plan.resource.instance_type
    return labels


def affinity(plan: Plan) -> m.Affinity | None:
    """Where several kinds of nodes will do: which may be, and which the scheduler prefers."""
    if provisions_nodes(plan):
        return None
    acceptable = instance_types(plan)
    several = acceptable if len(acceptable) > 1 else []
    preferred = [_preferred(SPOT_WEIGHT, *label) for label in SPOT.items()] if plan.nodes.spot else []
    preferred += [_preferred(max(FIRST_SIZE_WEIGHT - at, 1), SIZE, size) for at, size in enumerate(several)]
    preferred += [_by_name(node) for node in plan.resource.preferred_nodes]
    if not preferred:
        return None
    terms = [m.NodeSelectorTerm(match_expressions=[_is_in(SIZE, *several)])]
    required = m.NodeSelector(node_selector_terms=terms) if several else None
    return m.Affinity(
        node_affinity=m.NodeAffinity(
            required_during_scheduling_ignored_during_execution=required,
            preferred_during_scheduling_ignored_during_execution=preferred,
        )
    )


def _preferred(weight: int, label: str, value: str) -> m.PreferredSchedulingTerm:
    return m.PreferredSchedulingTerm(
        weight=weight, preference=m.NodeSelectorTerm(match_expressions=[_is_in(label, value)])
    )


def _by_name(node: str) -> m.PreferredSchedulingTerm:
    # By the node's name, which is what the user wrote; its label kubernetes.io/hostname may be another.
    named = m.NodeSelectorTerm(match_fields=[_is_in("metadata.name", node)])
    return m.PreferredSchedulingTerm(weight=NODE_WEIGHT, preference=named)


def _is_in(label: str, *values: str) -> m.NodeSelectorRequirement:
    return m.NodeSelectorRequirement(key=label, operator="In", values=list(values))
