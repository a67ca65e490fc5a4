"""Node selector, tolerations and affinity of GPU pods.

Nodes created for a run have its uid as a label, and its pods select them by that label only: a fallback instance type
is as good as the requested one. Existing and autoscaled nodes are selected by instance type.
"""

from __future__ import annotations

from hera.workflows import models as m

from steps.kubernetes import pod_policy
from steps.kubernetes.pod_policy import INSTANCE_TYPE_LABEL
from steps.provision.node_providers import RUN_LABEL
from workflows.compile.settings import UID, instance_types
from workflows.plan.model import Plan
from workflows.plan.nodes import provisions_nodes

SEARCH_LABEL = "argotune.dev/search"
"""Label of the GPU pods of a search; its value is the uid of the Workflow."""


def selector(plan: Plan) -> dict[str, str]:
    """Return the node labels that must match."""
    labels = dict(plan.resource.labels)
    if provisions_nodes(plan):
        labels[RUN_LABEL] = UID
    elif plan.resource.instance_type and not plan.nodes.fallback_instance_types:
        labels[INSTANCE_TYPE_LABEL] = plan.resource.instance_type
    return labels


def tolerations() -> list[m.Toleration]:
    """Return the tolerations of taints of GPU nodes: KAITO's, and Azure's of spot nodes."""
    return [m.Toleration.model_validate(taint) for taint in pod_policy.GPU_TOLERATIONS]


def on_one_node(affinity: m.Affinity | None) -> m.Affinity:
    """Return an affinity for the node of the other pods of the search, which has mounted the work volume."""
    term = m.PodAffinityTerm(
        label_selector=m.LabelSelector(match_labels={SEARCH_LABEL: UID}), topology_key="kubernetes.io/hostname"
    )
    pods = m.PodAffinity(required_during_scheduling_ignored_during_execution=[term])
    return (affinity or m.Affinity()).model_copy(update={"pod_affinity": pods})


def affinity(plan: Plan) -> m.Affinity | None:
    """Return the acceptable and the preferred nodes, if several kinds are acceptable."""
    if provisions_nodes(plan):
        return None
    acceptable = instance_types(plan)
    preferred = pod_policy.preferred_nodes(acceptable, plan.resource.preferred_nodes, spot=plan.nodes.spot)
    if not preferred:
        return None
    terms = [m.NodeSelectorTerm.model_validate(pod_policy.require_label(INSTANCE_TYPE_LABEL, *acceptable))]
    required = m.NodeSelector(node_selector_terms=terms) if len(acceptable) > 1 else None
    return m.Affinity(
        node_affinity=m.NodeAffinity(
            required_during_scheduling_ignored_during_execution=required,
            preferred_during_scheduling_ignored_during_execution=[
                m.PreferredSchedulingTerm.model_validate(term) for term in preferred
            ],
        )
    )
