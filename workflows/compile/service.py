"""What the rollout is told of the servers that it starts on a cluster; one machine has no use for it."""

from __future__ import annotations

from typing import Any

from workflows.estimate.plan_estimate import context_length
from workflows.plan.model import Plan


def flags(plan: Plan) -> dict[str, Any]:
    """Flags of rollout. Servers outlive the run, so they are never on nodes that were made for it."""
    chosen = plan.rollout
    if chosen is None:
        return {}
    sizes = [plan.resource.instance_type, *plan.nodes.fallback_instance_types] if plan.resource.instance_type else []
    volumes = {adapter.name: adapter.volume for adapter in chosen.adapters if adapter.volume is not None}
    if plan.output and plan.output.volume is not None:
        volumes[plan.name] = plan.output.volume  # where the adapter of this run is not pushed
    pushed = plan.output.push_secret if plan.output else ""
    optional: dict[str, Any] = {
        "template": chosen.template,
        "max-replicas": chosen.max_replicas,
        "prometheus": chosen.prometheus,
        "canary": chosen.canary,
        "gateway": chosen.gateway,
        "node-labels": plan.resource.labels,
        "instance-types": sizes,
        "preferred-nodes": plan.resource.preferred_nodes,
        "context-length": context_length(plan),
        "access-secret": plan.model.access_secret,
        "registry-secret": chosen.pull_secret or pushed,
        "adapter-volumes": volumes,
        "service-account": plan.service_account if plan.azure_workload_identity else "",
    }
    return {
        "serve-image": plan.images.serve,
        "replicas": chosen.replicas,
        "gpus": plan.resource.gpus,
        "gpu-resource": plan.resource.gpu_resource,
        "models-claim": plan.storage.models_claim,
        **{name: value for name, value in optional.items() if value},
        **({} if chosen.hot_load else {"hot-load": False}),
    }
