"""The Kubernetes objects of a served model, as plain maps: what is served, and who may reach it.

KAITO's face: a Service of the Workspace's name, port 80, before servers on port 5000. Behind it two Deployments, one
for each track: ``stable``, and ``canary`` while a new adapter is tried.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from steps.kubernetes.client import Kind
from steps.rollout import adapter_sources
from steps.rollout.service_pod import SERVICE_LABEL, user_port
from steps.rollout.service_release import Release
from steps.rollout.settings import Settings
from steps.serving import desired_adapters
from steps.serving.drain import PORT

Document = dict[str, Any]
SERVICE_PORT = 80
TRACK_LABEL = "argotune.dev/track"
STABLE, CANARY = "stable", "canary"
REVISION, DIGEST = "argotune.dev/revision", "argotune.dev/image-digest"
WAITING = 10
"""Requests that wait at one server, above which another is added (KAITO's own threshold)."""

DEPLOYMENTS = Kind("apps/v1", "deployments")
SERVICES = Kind("v1", "services")
BUDGETS = Kind("policy/v1", "poddisruptionbudgets")
POLICIES = Kind("networking.k8s.io/v1", "networkpolicies")
AUTOSCALERS = Kind("autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECTS = Kind("keda.sh/v1alpha1", "scaledobjects")
ROUTES = Kind("gateway.networking.k8s.io/v1", "httproutes")


def deployment(name: str, track: str, release: Release, *, scaled: bool, deadline: float) -> Document:
    """The Deployment of a track; ``scaled``: an autoscaler says how many servers there are."""
    labels = {SERVICE_LABEL: name, TRACK_LABEL: track}
    template = copy.deepcopy(release.pod)
    metadata = template["metadata"]
    metadata["labels"] = {**metadata["labels"], **_named(name), **labels}
    metadata["annotations"] = {**metadata.get("annotations", {}), REVISION: release.revision}
    for volume in template["spec"].get("volumes") or []:
        if volume.get("configMap", {}).get("name") == "":
            volume["configMap"]["name"] = wanted_name(name, release.revision)
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": "Deployment",
        "metadata": {
            "name": deployment_name(name, track),
            "labels": {**_named(name), **labels},
            "annotations": {REVISION: release.revision, DIGEST: release.image_digest},
        },
        "spec": {
            **({} if scaled else {"replicas": release.replicas}),
            "selector": {"matchLabels": labels},
            # A new server is ready before an old one goes.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": max(60, int(deadline)),
            "revisionHistoryLimit": 2,
            "template": template,
        },
    }


def wanted(name: str, revision: str, adapters: list[desired_adapters.DesiredAdapter]) -> Document:
    """The ConfigMap that tells the servers of a revision which adapters to serve, now and when it changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": wanted_name(name, revision), "labels": {**_named(name), SERVICE_LABEL: name}},
        "data": {"adapters.json": desired_adapters.serialize(adapters)},
    }


def around(given: Settings) -> list[tuple[Kind, Document]]:
    """What stands around the servers, whatever they serve."""
    name = given.name
    select = {SERVICE_LABEL: name}
    # Without a Gateway the number of servers splits the requests: all stand behind the one Service.
    behind = {**select, TRACK_LABEL: STABLE} if given.gateway else select
    found: list[tuple[Kind, Document]] = [
        (SERVICES, _service(given, name, behind)),
        (BUDGETS, _budget(name, select)),
        (POLICIES, _policy(given, name, select)),
    ]
    if given.max_replicas > given.replicas:
        found.append((SCALED_OBJECTS, _scaled(given)) if given.prometheus else (AUTOSCALERS, _autoscaler(given)))
    if given.gateway:
        for track in (STABLE, CANARY):
            found.append((SERVICES, _service(given, f"{name}-{track}", {**select, TRACK_LABEL: track})))
    return found


def route(name: str, gateway: str, percent: int) -> Document:
    """The HTTPRoute by which a Gateway gives the canary its share."""
    namespace, _, gateway_name = gateway.rpartition("/")
    parent = {"name": gateway_name, **({"namespace": namespace} if namespace else {})}
    weights = {STABLE: 100 - percent, CANARY: percent}
    backends = [{"name": f"{name}-{track}", "port": SERVICE_PORT, "weight": part} for track, part in weights.items()]
    return {
        "apiVersion": ROUTES.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "labels": {**_named(name), SERVICE_LABEL: name}},
        "spec": {
            "parentRefs": [parent],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}
            ],
        },
    }  # fmt: skip


def deployment_name(name: str, track: str) -> str:
    """The stable one has the name of the service, as with KAITO."""
    return name if track == STABLE else f"{name}-{track}"


def wanted_name(name: str, revision: str) -> str:
    """Name of the ConfigMap of a revision."""
    return f"{name}-adapters-{revision}"


def _service(given: Settings, service: str, select: Mapping[str, str]) -> Document:
    target = "http" if not given.template else user_port(given.template)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service, "labels": {**_named(given.name), SERVICE_LABEL: given.name}},
        "spec": {
            "type": "ClusterIP",
            "selector": dict(select),
            "ports": [{"name": "http", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": target}],
        },
    }


def _budget(name: str, select: Mapping[str, str]) -> Document:
    return {
        "apiVersion": BUDGETS.api_version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "labels": {**_named(name), SERVICE_LABEL: name}},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(select)}},
    }


def _policy(given: Settings, name: str, select: Mapping[str, str]) -> Document:
    """In: from pods of the cluster, to the served port. Out: names, and HTTPS to registries and the hub."""
    port = user_port(given.template) if given.template else PORT
    link_local = [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}, {"cidr": "::/0", "except": ["fe80::/10"]}]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": POLICIES.api_version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {**_named(name), SERVICE_LABEL: name}},
        "spec": {
            "podSelector": {"matchLabels": dict(select)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": port}]}],
            "egress": [
                {"ports": dns},
                {"to": [{"ipBlock": block} for block in link_local], "ports": [{"protocol": "TCP", "port": 443}]},
            ],
        },
    }


def _autoscaler(given: Settings) -> Document:
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "vllm_num_requests_waiting"},
            "target": {"type": "AverageValue", "averageValue": str(WAITING)},
        },
    }
    return {
        "apiVersion": AUTOSCALERS.api_version,
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": given.name, "labels": {**_named(given.name), SERVICE_LABEL: given.name}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": given.name},
            "minReplicas": given.replicas,
            "maxReplicas": given.max_replicas,
            "metrics": [metric],
        },
    }


def _scaled(given: Settings) -> Document:
    base = adapter_sources.base_name(given)
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": given.prometheus,
            "query": f'sum(vllm:num_requests_waiting{{model_name="{base}"}})',
            "threshold": str(WAITING),
        },
    }
    return {
        "apiVersion": SCALED_OBJECTS.api_version,
        "kind": "ScaledObject",
        "metadata": {"name": given.name, "labels": {**_named(given.name), SERVICE_LABEL: given.name}},
        "spec": {
            "scaleTargetRef": {"name": given.name},
            "minReplicaCount": given.replicas,
            "maxReplicaCount": given.max_replicas,
            "cooldownPeriod": 300,
            "triggers": [trigger],
        },
    }


def _named(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        "app.kubernetes.io/component": "inference",
        "app.kubernetes.io/managed-by": "argotune",
    }
