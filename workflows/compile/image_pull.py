"""The task ``pull``: pods that only pull the image of ``tune`` onto the nodes of a run, while data is downloaded.

Where a run creates its nodes, no node has the image. The pods request no GPU and end immediately. Nothing depends on
them: the DAG around them accepts their failure, which a DAG with ``depends`` cannot.
"""

from __future__ import annotations

from typing import Any

from hera.workflows import DAG, Container, Resources
from hera.workflows import models as m

from steps.kubernetes import pod_policy
from steps.report.argo_values import IMAGE_PULL
from workflows.compile import placement, pod, pod_options
from workflows.compile.settings import UID
from workflows.plan.model import Plan
from workflows.plan.pods import PodResources, for_pod

LABEL = "argotune.dev/pull"
"""Label of the pods; its value is the uid of the Workflow."""
TIMEOUT = "15m"
"""End of a pod that has no node or cannot pull: a run that ends before it waits for it.

Argo 4.1 enforces it for a Pending pod only without ``retryStrategy``. In a Steps template, it fails the template
despite ``continueOn``.
"""


def pull(plan: Plan) -> DAG:
    """Return the template of the task: one pod for each node that tunes."""
    image = _pod(plan)
    with DAG(name=pull.__name__) as dag:
        items = list(range(plan.resource.count)) if plan.resource.count > 1 else None
        image(name=IMAGE_PULL, continue_on=m.ContinueOn(failed=True, error=True), with_items=items)
    return dag


def _pod(plan: Plan) -> Container:
    """Return a pod with the placement, security and registry access of tune, and nothing else of it."""
    fields: dict[str, Any] = dict(
        name=IMAGE_PULL,
        image=plan.images.tune,
        command=["true"],
        labels={LABEL: UID},
        annotations=pod.PROGRESS,
        resources=Resources(cpu_request="10m", memory_request="32Mi"),
        node_selector=placement.selector(plan),
        affinity=_on_separate_nodes() if plan.resource.count > 1 else None,
        tolerations=placement.tolerations(),
        service_account_name=pod.account(plan, "tune"),
        security_context=m.SecurityContext.model_validate(pod_policy.CONTAINER_SECURITY_CONTEXT),
        timeout=TIMEOUT,
    )
    options = for_pod(plan.pods, "tune")
    # Requests of tune would keep its pod waiting for this one.
    own = options.model_copy(update={"env": [], "ca_bundle": None, "resources": PodResources()})
    return Container(**pod_options.apply(own, fields))


def _on_separate_nodes() -> m.Affinity:
    """Return an affinity that keeps the pods of a run apart while they pull."""
    term = m.PodAffinityTerm(
        label_selector=m.LabelSelector(match_labels={LABEL: UID}), topology_key="kubernetes.io/hostname"
    )
    return m.Affinity(pod_anti_affinity=m.PodAntiAffinity(required_during_scheduling_ignored_during_execution=[term]))
