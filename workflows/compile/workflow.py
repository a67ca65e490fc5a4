"""The Workflow around the DAG: parameters, volumes, locks, security and retention."""

from __future__ import annotations

from typing import Any

from hera.workflows import Workflow
from hera.workflows import models as m

from steps.kubernetes import pod_policy
from workflows.compile import volumes
from workflows.compile.parameters import parameters
from workflows.plan.model import Plan
from workflows.spec.field_types import whole_seconds

MAIN, EXIT = "main", "exit"
"""Names of the entrypoint and the exit handler."""


def workflow(plan: Plan, **fields: Any) -> Workflow:
    """Return Hera's Workflow for a plan, without templates; ``fields`` override those set here."""
    defaults = {
        "generate_name": f"{plan.name}-",
        "namespace": plan.namespace or None,
        "entrypoint": MAIN,
        "on_exit": EXIT,
        "service_account_name": plan.service_account,
        "arguments": parameters(plan),
        "labels": {
            **plan.labels,
            "app.kubernetes.io/managed-by": "argotune",
            "argotune.dev/workspace": plan.name,
        },
        "annotations": _annotations(plan),
        "pod_metadata": _pod_metadata(plan),
        "volume_claim_templates": [volumes.work_claim(plan)],
        "volumes": volumes.volumes(plan),
        "volume_claim_gc": m.VolumeClaimGC(strategy="OnWorkflowSuccess"),
        "pod_gc": m.PodGC(strategy="OnPodSuccess", delete_delay_duration="600s"),
        "ttl_strategy": m.TTLStrategy(seconds_after_success=7 * 86400, seconds_after_failure=30 * 86400),
        "active_deadline_seconds": whole_seconds(plan.time_limit) if plan.time_limit else None,
        # Concurrent runs of one Workspace would overwrite each other's tag, output volume and service.
        "synchronization": m.Synchronization(mutexes=[m.Mutex(name=f"argotune-{plan.name}")]),
        "security_context": m.PodSecurityContext.model_validate(pod_policy.POD_SECURITY_CONTEXT),
    }
    return Workflow(**{**defaults, **fields})


def _annotations(plan: Plan) -> dict[str, str]:
    model = plan.model
    title = f"Tune {model.preset} ({plan.tuning.method})" if plan.tuning else f"Serve {model.preset or 'a pod'}"
    base = f"base model {model.repository} at {model.revision}" if model.repository else "serves a custom pod"
    return {
        "workflows.argoproj.io/title": f"{title} for {plan.name}",
        "workflows.argoproj.io/description": f"Compiled by argotune from Workspace {plan.name}; {base}",
    }


def _pod_metadata(plan: Plan) -> m.Metadata:
    # Azure's workload identity webhook only considers pods with this label.
    identity = {"azure.workload.identity/use": "true"} if plan.azure_workload_identity else {}
    return m.Metadata(labels={"argotune.dev/workspace": plan.name, **identity})
