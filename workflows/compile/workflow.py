"""What surrounds the DAG: parameters to submit with, volumes, locks, security, how long things are kept."""

from __future__ import annotations

from typing import Any

from hera.workflows import Workflow
from hera.workflows import models as m

from workflows.compile import volumes
from workflows.compile.parameters import parameters
from workflows.plan.model import Plan
from workflows.spec.pipeline import whole_seconds

MAIN, EXIT = "main", "exit"
"""Names of the templates that a run begins and ends with."""


def workflow(plan: Plan, **fields: Any) -> Workflow:
    """Hera's Workflow for a plan, still without templates; ``fields`` of Hera's take the place of those made here."""
    made = {
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
        # Two runs of one Workspace would move its tag, its volume and its service by turns.
        "synchronization": m.Synchronization(mutexes=[m.Mutex(name=f"argotune-{plan.name}")]),
        "security_context": m.PodSecurityContext(
            run_as_non_root=True,
            run_as_user=1000,
            run_as_group=1000,  # as in the images; without it Kubernetes takes root's group
            fs_group=1000,
            seccomp_profile=m.SeccompProfile(type="RuntimeDefault"),
        ),
    }
    return Workflow(**{**made, **fields})


def _annotations(plan: Plan) -> dict[str, str]:
    model = plan.model
    title = f"Tune {model.preset} ({plan.tuning.method})" if plan.tuning else f"Serve {model.preset or 'a pod'}"
    base = f"base model {model.repository} at {model.revision}" if model.repository else "a pod of its own is served"
    return {
        "workflows.argoproj.io/title": f"{title} for {plan.name}",
        "workflows.argoproj.io/description": f"Compiled by argotune from Workspace {plan.name}; {base}",
    }


def _pod_metadata(plan: Plan) -> m.Metadata:
    # The webhook of Azure's workload identity looks at pods with this label alone.
    identity = {"azure.workload.identity/use": "true"} if plan.azure_workload_identity else {}
    return m.Metadata(labels={"argotune.dev/workspace": plan.name, **identity})
