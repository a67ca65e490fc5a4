"""Node selector and affinity of GPU pods.

Nodes created for a run have its uid as a label, and its pods select them by that label only: a fallback instance type
is as good as the requested one. Existing and autoscaled nodes are selected by instance type.
"""

from __future__ import annotations

from hera.workflows import models as m

from steps.provision.node_providers import RUN_LABEL
from workflows.compile.settings import UID, instance_types
from workflows.plan.model import Plan
from workflows.plan.nodes import provisions_nodes

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
# Labels of spot nodes: in AKS pools, of Karpenter.
SPOT = {"kubernetes.azure.com/scalesetpriority": "spot", "karpenter.sh/capacity-type": "spot"}
# Weights of preferences: spot first, as it is cheap, then the order of the instance types; node names break ties.
SPOT_WEIGHT, FIRST_TYPE_WEIGHT, NODE_WEIGHT = 100, 50, 10


def selector(plan: Plan) -> dict[str, str]:
    """Return the node labels that must match."""
    labels = dict(plan.resource.labels)
    if provisions_nodes(plan):
        labels[RUN_LABEL] = UID
    elif plan.resource.instance_type and not plan.nodes.fallback_instance_types:
        labels[INSTANCE_TYPE] = plan.resource.instance_type
    return labels


def affinity(plan: Plan) -> m.Affinity | None:
    """Return the acceptable and the preferred nodes, if several kinds are acceptable."""
    if provisions_nodes(plan):
        return None
    acceptable = instance_types(plan)
    several = acceptable if len(acceptable) > 1 else []
    preferred = [_prefer(SPOT_WEIGHT, *label) for label in SPOT.items()] if plan.nodes.spot else []
    preferred += [
        _prefer(max(FIRST_TYPE_WEIGHT - index, 1), INSTANCE_TYPE, name) for index, name in enumerate(several)
    ]
    preferred += [_prefer_node(node) for node in plan.resource.preferred_nodes]
    if not preferred:
        return None
    terms = [m.NodeSelectorTerm(match_expressions=[_is_in(INSTANCE_TYPE, *several)])]
    required = m.NodeSelector(node_selector_terms=terms) if several else None
    return m.Affinity(
        node_affinity=m.NodeAffinity(
            required_during_scheduling_ignored_during_execution=required,
            preferred_during_scheduling_ignored_during_execution=preferred,
        )
    )


def _prefer(weight: int, label: str, value: str) -> m.PreferredSchedulingTerm:
    return m.PreferredSchedulingTerm(
        weight=weight, preference=m.NodeSelectorTerm(match_expressions=[_is_in(label, value)])
    )


def _prefer_node(node: str) -> m.PreferredSchedulingTerm:
    # By the node's name, as in the Workspace; the label kubernetes.io/hostname can differ.
    term = m.NodeSelectorTerm(match_fields=[_is_in("metadata.name", node)])
    return m.PreferredSchedulingTerm(weight=NODE_WEIGHT, preference=term)


def _is_in(label: str, *values: str) -> m.NodeSelectorRequirement:
    return m.NodeSelectorRequirement(key=label, operator="In", values=list(values))
