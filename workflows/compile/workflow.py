"""The Workflow around the DAG: parameters, volumes, locks, security and retention."""

from __future__ import annotations

from typing import Any

from hera.workflows import Workflow
from hera.workflows import models as m

from steps.kubernetes import pod_policy
from workflows.compile import metadata, volumes
from workflows.compile.parameters import parameters
from workflows.plan.model import Plan
from workflows.spec.field_types import whole_seconds

MAIN, EXIT = "main", "exit"
"""Names of the entrypoint and the exit handler."""
MAX_DAYS, MAX_DAYS_WITH_APPROVAL = 7, 30
"""Default time limits of a run."""


KEPT_LOG = "argotune.dev/keep-log"
"""Label of pods that stay as long as their Workflow, so that ``argotune logs`` has the log of a training."""


def workflow(plan: Plan, **fields: Any) -> Workflow:
    """Return Hera's Workflow for a plan, without templates; ``fields`` override those set here."""
    defaults = {
        "generate_name": f"{plan.name}-",
        "namespace": plan.namespace or None,
        "entrypoint": MAIN,
        "on_exit": EXIT,
        "service_account_name": plan.service_account,
        "arguments": parameters(plan),
        "labels": metadata.labels(plan),
        "annotations": metadata.title_and_description(plan),
        "pod_metadata": _pod_metadata(plan),
        "volume_claim_templates": [volumes.work_claim(plan)],
        "volumes": volumes.volumes(plan),
        "volume_claim_gc": m.VolumeClaimGC(strategy="OnWorkflowSuccess"),
        "pod_gc": _pod_gc(),
        "ttl_strategy": m.TTLStrategy(seconds_after_success=7 * 86400, seconds_after_failure=30 * 86400),
        "active_deadline_seconds": _deadline_seconds(plan),
        # Concurrent runs of one Workspace would overwrite each other's tag, output volume and service.
        "synchronization": m.Synchronization(mutexes=[m.Mutex(name=f"argotune-{plan.name}")]),
        "security_context": m.PodSecurityContext.model_validate(pod_policy.POD_SECURITY_CONTEXT),
    }
    return Workflow(**{**defaults, **fields})


def _pod_gc() -> m.PodGC:
    """Return which pods are deleted before their Workflow: not those that failed, nor those whose log is kept."""
    not_kept = m.LabelSelectorRequirement(key=KEPT_LOG, operator="NotIn", values=["true"])
    selector = m.LabelSelector(match_expressions=[not_kept])
    return m.PodGC(strategy="OnPodSuccess", delete_delay_duration="600s", label_selector=selector)


def _deadline_seconds(plan: Plan) -> int:
    """Return the time limit of a run; by default one that only a run which hangs reaches."""
    if plan.time_limit:
        return whole_seconds(plan.time_limit)
    days = MAX_DAYS_WITH_APPROVAL if plan.approval else MAX_DAYS
    return max(days * 86400, 2 * whole_seconds(plan.tuning.timeout) if plan.tuning else 0)


def _pod_metadata(plan: Plan) -> m.Metadata:
    # Azure's workload identity webhook only considers pods with this label.
    identity = {"azure.workload.identity/use": "true"} if plan.azure_workload_identity else {}
    return m.Metadata(labels={"argotune.dev/workspace": plan.name, **identity})
