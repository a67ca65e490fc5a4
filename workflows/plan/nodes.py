"""Rules for the nodes of a plan: who creates them, and whether they last as long as the run."""

from __future__ import annotations

from collections.abc import Iterator

from steps.provision.node_providers import CREATING_PROVIDERS
from steps.report.gpu_usage import GpuNodes
from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.plan.node_price import is_maximum
from workflows.spec.field_types import whole_seconds

CLUSTER_FIELDS = ("subscription", "resourceGroup", "cluster")
CREATED_ONLY = ("nodes.zones", "nodes.lease")
"""Fields that have an effect only where a run creates its nodes."""


def provider(plan: Plan) -> str:
    """Return the provider of the nodes of this plan.

    Without an instance type the nodes exist already, as with KAITO. A plan that only serves creates none: its servers
    outlive the run, so they cannot be on nodes of the run.
    """
    configured = plan.nodes.provider
    if configured not in CREATING_PROVIDERS:
        return configured
    if not plan.resource.instance_type:
        return "existing"
    return configured if plan.tuning else "autoscaler"


def provisions_nodes(plan: Plan) -> bool:
    """Return True if each run of the plan creates nodes, and releases them."""
    return provider(plan) in CREATING_PROVIDERS


def gpu_nodes(plan: Plan) -> GpuNodes:
    """Return what a run of the plan pays for, for its report and for ``argotune status``."""
    trials, nodes = plan.search.parallel if plan.search else 1, plan.resource.count
    shares = {"tune": 1 / trials, "evaluate": 1 / trials / nodes}
    return GpuNodes(
        plan.resource.gpus * nodes,
        plan.usd_per_hour or None,
        provisions_nodes(plan),
        {step: round(share, 6) for step, share in shares.items() if share != 1},
        is_maximum=is_maximum(plan),
    )


def problems(plan: Plan) -> Iterator[Problem]:
    """Yield what would fail only in the cluster: an incomplete site profile, or a lease shorter than the run."""
    if not provisions_nodes(plan):
        return
    if plan.queue:
        message = (
            f"cannot be combined with nodes.provider {plan.nodes.provider}: nodes are paid before Kueue admits pods"
        )
        fix = "set nodes.provider: autoscaler (Kueue requests nodes with a ProvisioningRequest) or existing"
        yield Problem(message, path="pipeline.queue", fix=fix)
    if plan.nodes.provider == "aks":
        values = (plan.nodes.subscription, plan.nodes.resource_group, plan.nodes.cluster)
        missing = [f"nodes.{name}" for name, value in zip(CLUSTER_FIELDS, values, strict=True) if not value]
        if missing:
            message = f"nodes.provider aks requires {', '.join(missing)}"
            yield Problem(message, fix="set them in the site profile")
    if plan.nodes.provider == "karpenter":
        yield from _node_class_problems(plan)
    yield from _lease_problems(plan)


def _node_class_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a node class that is unknown, or that cannot create spot nodes."""
    from steps.provision.karpenter_objects import node_class
    from steps.runtime.errors import BadInput

    try:
        _, _, facts = node_class(plan.nodes.node_class)
    except BadInput as error:
        yield Problem(error.message.removeprefix("--node-class "), path="nodes.nodeClass", fix=error.fix)
        return
    if plan.nodes.spot and not facts.pools:
        message = f"{plan.nodes.node_class} (gpu-provisioner) does not support spot nodes"
        yield Problem(message, path="pipeline.nodes.spot", fix="set spot: false")


def _lease_problems(plan: Plan) -> Iterator[Problem]:
    """Yield a lease that ends before the run does."""
    timeout = plan.tuning.timeout if plan.tuning else "1s"
    for limit, name in ((plan.time_limit, "the time limit"), (timeout, "the timeout of tune")):
        if limit and whole_seconds(limit) > whole_seconds(plan.nodes.lease):
            message = f"{plan.nodes.lease} is shorter than {name} ({limit}); argotune gc deletes older nodes"
            yield Problem(message, path="pipeline.nodes.lease", fix=f"set lease: {limit} or more")
            return


def warnings(plan: Plan) -> Iterator[Problem]:
    """Yield fields about created nodes where none are created."""
    if provisions_nodes(plan):
        return
    if provider(plan) == "autoscaler" and plan.resource.instance_type and plan.resource.labels:
        labels = ", ".join(f"{key}={value}" for key, value in plan.resource.labels.items())
        message = f"pods stay pending unless a node pool of the cluster has {labels}: the run creates no nodes"
        fix = "label the node pool, or remove instanceType to select existing nodes"
        if plan.tuning:
            fix += "; with nodes.provider karpenter or aks in the site profile, each run creates nodes with the labels"
        yield Problem(message, path="resource.labelSelector", fix=fix)
    for path in CREATED_ONLY:
        if plan.origin(path).startswith("Workspace"):
            message = f"has no effect: the run creates no nodes (nodes.provider is {provider(plan)})"
            yield Problem(message, path=f"pipeline.{path}", fix="remove it, or set nodes.provider in the site profile")
