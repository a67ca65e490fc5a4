"""What must hold between the nodes of a plan, the site that makes them and the Workspace that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

from steps.provision.node_providers import CREATING_PROVIDERS
from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.spec.pipeline import whole_seconds

OF_AKS = ("subscription", "resourceGroup", "cluster")
ONLY_MADE = ("nodes.zones", "nodes.lease")
"""What means something only where nodes are made for a run."""


def provider(plan: Plan) -> str:
    """Who makes nodes exist for this plan.

    Without a size they are there already, as with KAITO. And for a plan that only serves none are made: what serves
    stays when the run ends, so it can't be on nodes of the run.
    """
    given = plan.nodes.provider
    if given not in CREATING_PROVIDERS:
        return given
    if not plan.resource.instance_type:
        return "existing"
    return given if plan.tuning else "autoscaler"


def provisions_nodes(plan: Plan) -> bool:
    """Whether nodes are made for each run of the plan, and given back."""
    return provider(plan) in CREATING_PROVIDERS


def problems(plan: Plan) -> Iterator[Problem]:
    """What would fail in the cluster only: a site that does not say which cluster, a lease shorter than the run."""
    if not provisions_nodes(plan):
        return
    if plan.nodes.provider == "aks":
        given = (plan.nodes.subscription, plan.nodes.resource_group, plan.nodes.cluster)
        missing = [name for name, value in zip(OF_AKS, given, strict=True) if not value]
        if missing:
            names = ", ".join(f"nodes.{name}" for name in missing)
            yield Problem(
                f"node pools of AKS are made, and {names} are not set", fix="write them into the site profile"
            )
    if plan.nodes.provider == "karpenter":
        yield from _of_karpenter(plan)
    yield from _outlived(plan)


def _of_karpenter(plan: Plan) -> Iterator[Problem]:
    """A class of nodes that is not known, or that makes no spot nodes."""
    from steps.provision.karpenter_objects import node_class
    from steps.runtime.errors import BadInput

    try:
        _, _, facts = node_class(plan.nodes.node_class)
    except BadInput as error:
        yield Problem(error.message.removeprefix("--node-class "), path="nodes.nodeClass", fix=error.fix)
        return
    if plan.nodes.spot and not facts.pools:
        what = f"{plan.nodes.node_class} (gpu-provisioner) makes no spot nodes"
        yield Problem(what, path="pipeline.nodes.spot", fix="write spot: false")


def _outlived(plan: Plan) -> Iterator[Problem]:
    """Nodes whose lease ends before the run must."""
    tuning = plan.tuning.timeout if plan.tuning else "1s"
    for limit, what in ((plan.time_limit, "the time limit"), (tuning, "one attempt to tune")):
        if limit and whole_seconds(limit) > whole_seconds(plan.nodes.lease):
            told = f"{plan.nodes.lease} is shorter than {what} ({limit}); argotune gc takes what is older"
            yield Problem(told, path="pipeline.nodes.lease", fix=f"write lease: {limit} or more")
            return


def warnings(plan: Plan) -> Iterator[Problem]:
    """What the Workspace says of nodes that are made for a run, where none are made."""
    if provisions_nodes(plan):
        return
    for path in ONLY_MADE:
        if plan.origin(path).startswith("Workspace"):
            what = f"has no effect: no nodes are made for this run (provider {provider(plan)})"
            yield Problem(what, path=f"pipeline.{path}", fix="leave it out, or set nodes.provider in the site profile")
