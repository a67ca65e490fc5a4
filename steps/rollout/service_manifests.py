"""The Kubernetes objects of a served model, as plain mappings.

As with KAITO, a Service named after the Workspace listens on port 80 in front of servers on port 5000. Each track of
the service (``service_release``) has its own Deployment.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from steps.kubernetes.client import SERVICES, Kind
from steps.rollout import adapter_sources, service_group
from steps.rollout.service_pod import has_metrics, user_port
from steps.rollout.service_release import CANARY, SERVICE_LABEL, STABLE, Release
from steps.rollout.settings import Settings
from steps.serving import desired_adapters, metrics_address
from steps.serving.drain import PORT

Document = dict[str, Any]
SERVICE_PORT = 80
TRACK_LABEL = "argotune.dev/track"
NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Label with its name that every namespace has."""
REVISION, DIGEST = "argotune.dev/revision", "argotune.dev/image-digest"
WAITING = 10
"""Waiting requests per server above which a server is added (KAITO's threshold)."""

DEPLOYMENTS = Kind("apps/v1", "deployments")
BUDGETS = Kind("policy/v1", "poddisruptionbudgets")
POLICIES = Kind("networking.k8s.io/v1", "networkpolicies")
AUTOSCALERS = Kind("autoscaling/v2", "horizontalpodautoscalers")
SCALED_OBJECTS = Kind("keda.sh/v1alpha1", "scaledobjects")
ROUTES = Kind("gateway.networking.k8s.io/v1", "httproutes")


def workload(name: str, track: str, release: Release, *, scaled: bool, deadline: float) -> list[tuple[Kind, Document]]:
    """Return the objects with the pods of a release, the one that has them last."""
    if not release.group:
        return [(DEPLOYMENTS, deployment(name, track, release, scaled=scaled, deadline=deadline))]
    metadata, template = _metadata(name, track, release), _template(name, track, release)
    return service_group.objects(metadata, template, release.group, release.nodes, release.replicas)


def deployment(name: str, track: str, release: Release, *, scaled: bool, deadline: float) -> Document:
    """Return the Deployment of a track; with ``scaled``, an autoscaler sets its replicas."""
    labels = {SERVICE_LABEL: name, TRACK_LABEL: track}
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": "Deployment",
        "metadata": {**_metadata(name, track, release), "name": deployment_name(name, track)},
        "spec": {
            **({} if scaled else {"replicas": release.replicas}),
            "selector": {"matchLabels": labels},
            # A new server is ready before an old one is deleted.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "progressDeadlineSeconds": max(60, int(deadline)),
            "revisionHistoryLimit": 2,
            "template": _template(name, track, release),
        },
    }


def adapters_config_map(name: str, revision: str, adapters: list[desired_adapters.DesiredAdapter]) -> Document:
    """Return the ConfigMap with the desired adapters of a revision, which its servers watch."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": config_map_name(name, revision), "labels": {**_labels(name), SERVICE_LABEL: name}},
        "data": {"adapters.json": desired_adapters.serialize(adapters)},
    }


def supporting_objects(settings: Settings, group: str = "", *, grouped: bool = False) -> list[tuple[Kind, Document]]:
    """Return the objects next to the Deployments, which do not depend on the release.

    Args:
        settings: Settings of the rollout.
        group: Kind of the servers that answer now, or of the first ones.
        grouped: True if a release, also a previous one, has servers on several nodes.
    """
    name = settings.name
    select = {SERVICE_LABEL: name}
    backends = backend_labels(name, group)
    # Without a Gateway, one Service has the servers of all tracks, so their number splits the requests.
    if settings.gateway:
        backends[TRACK_LABEL] = STABLE
    objects: list[tuple[Kind, Document]] = [
        (SERVICES, _service(settings, name, backends)),
        (BUDGETS, _budget(name, select)),
        (POLICIES, _policy(settings, name, select, grouped=grouped)),
    ]
    if settings.max_replicas > settings.replicas:
        scaler = (SCALED_OBJECTS, _scaled_object) if settings.prometheus else (AUTOSCALERS, _autoscaler)
        objects.append((scaler[0], scaler[1](settings)))
    if settings.gateway:
        for track in (STABLE, CANARY):
            # Only Deployments have tracks that split the requests.
            labels = {**backend_labels(name, ""), TRACK_LABEL: track}
            objects.append((SERVICES, _service(settings, f"{name}-{track}", labels)))
    return objects


def backend_labels(name: str, group: str) -> dict[str, str]:
    """Return the labels of the pods behind the Service: of a server on several nodes, its leader."""
    return {SERVICE_LABEL: name, **service_group.server_selector(group)}


def route(name: str, gateway: str, percent: int) -> Document:
    """Return the HTTPRoute that splits the requests between the tracks."""
    namespace, _, gateway_name = gateway.rpartition("/")
    parent = {"name": gateway_name, **({"namespace": namespace} if namespace else {})}
    weights = {STABLE: 100 - percent, CANARY: percent}
    backends = [{"name": f"{name}-{track}", "port": SERVICE_PORT, "weight": part} for track, part in weights.items()]
    return {
        "apiVersion": ROUTES.api_version,
        "kind": "HTTPRoute",
        "metadata": {"name": name, "labels": {**_labels(name), SERVICE_LABEL: name}},
        "spec": {
            "parentRefs": [parent],
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}
            ],
        },
    }  # fmt: skip


def deployment_name(name: str, track: str) -> str:
    """Return the name of a track's Deployment; the stable one has the name of the service, as with KAITO."""
    return name if track == STABLE else f"{name}-{track}"


def config_map_name(name: str, revision: str) -> str:
    """Return the name of a revision's ConfigMap."""
    return f"{name}-adapters-{revision}"


def _metadata(name: str, track: str, release: Release) -> Document:
    """Return the metadata of the object with the pods, with the name of the service."""
    return {
        "name": name,
        "labels": {**_labels(name), SERVICE_LABEL: name, TRACK_LABEL: track},
        "annotations": {REVISION: release.revision, DIGEST: release.image_digest},
    }


def _template(name: str, track: str, release: Release) -> Document:
    """Return the pod template of a release, with the labels of the service and the ConfigMap of its adapters."""
    template = copy.deepcopy(release.pod)
    metadata = template["metadata"]
    metadata["labels"] = {**metadata["labels"], **_labels(name), SERVICE_LABEL: name, TRACK_LABEL: track}
    metadata["annotations"] = {**metadata.get("annotations", {}), REVISION: release.revision}
    for volume in template["spec"].get("volumes") or []:
        if volume.get("configMap", {}).get("name") == "":
            volume["configMap"]["name"] = config_map_name(name, release.revision)
    return template


def _service(settings: Settings, service: str, select: Mapping[str, str]) -> Document:
    target = "http" if not settings.template else user_port(settings.template)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service, "labels": {**_labels(settings.name), SERVICE_LABEL: settings.name}},
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
        "metadata": {"name": name, "labels": {**_labels(name), SERVICE_LABEL: name}},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(select)}},
    }


def _policy(settings: Settings, name: str, select: Mapping[str, str], *, grouped: bool) -> Document:
    """Allow ingress from clients and Prometheus, and egress to DNS and by HTTPS to registries and the hub.

    With ``grouped``, the pods of the service also connect to each other, on any port (NCCL and gloo choose them).
    """
    port = user_port(settings.template) if settings.template else PORT
    gateway, prometheus = settings.gateway.partition("/")[0], _namespace_of_url(settings.prometheus)
    ingress = [_rule(settings, port, gateway, "" if has_metrics(settings) else prometheus)]
    if has_metrics(settings):
        ingress.append(_rule(settings, metrics_address.PORT, prometheus))
    link_local = [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}, {"cidr": "::/0", "except": ["fe80::/10"]}]
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    others = {"podSelector": {"matchLabels": dict(select)}}
    return {
        "apiVersion": POLICIES.api_version,
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "labels": {**_labels(name), SERVICE_LABEL: name}},
        "spec": {
            "podSelector": {"matchLabels": dict(select)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [*ingress, *([{"from": [others]}] if grouped else [])],
            "egress": [
                *([{"to": [others]}] if grouped else []),
                {"ports": dns},
                {"to": [{"ipBlock": block} for block in link_local], "ports": [{"protocol": "TCP", "port": 443}]},
            ],
        },
    }


def _rule(settings: Settings, port: int, *namespaces: str) -> Document:
    """Return the rule that admits the pods of the namespace, of the allowed ones, and of some others to a port."""
    allowed = dict.fromkeys([*settings.allowed_namespaces, *namespaces])
    selectors = [{"matchLabels": {NAMESPACE_LABEL: one}} for one in allowed if one]
    peers: list[Document] = [{"podSelector": {}}, *({"namespaceSelector": selector} for selector in selectors)]
    if "*" in allowed:
        peers = [{"namespaceSelector": {}}]
    return {"from": peers, "ports": [{"protocol": "TCP", "port": port}]}


def _namespace_of_url(url: str) -> str:
    """Return the namespace of the URL of a Service (``http://NAME.NAMESPACE[.svc...]``), "" of any other."""
    labels = (urlsplit(url).hostname or "").split(".")
    is_service = len(labels) == 2 or (len(labels) > 2 and labels[2] == "svc")
    return labels[1] if is_service else ""


def _autoscaler(settings: Settings) -> Document:
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
        "metadata": {"name": settings.name, "labels": {**_labels(settings.name), SERVICE_LABEL: settings.name}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": settings.name},
            "minReplicas": settings.replicas,
            "maxReplicas": settings.max_replicas,
            "metrics": [metric],
        },
    }


def _scaled_object(settings: Settings) -> Document:
    base = adapter_sources.base_name(settings)
    trigger = {
        "type": "prometheus",
        "metadata": {
            "serverAddress": settings.prometheus,
            "query": f'sum(vllm:num_requests_waiting{{model_name="{base}"}})',
            "threshold": str(WAITING),
        },
    }
    return {
        "apiVersion": SCALED_OBJECTS.api_version,
        "kind": "ScaledObject",
        "metadata": {"name": settings.name, "labels": {**_labels(settings.name), SERVICE_LABEL: settings.name}},
        "spec": {
            "scaleTargetRef": {"name": settings.name},
            "minReplicaCount": settings.replicas,
            "maxReplicaCount": settings.max_replicas,
            "cooldownPeriod": 300,
            "triggers": [trigger],
        },
    }


def _labels(name: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": name,
        service_group.COMPONENT_LABEL: service_group.COMPONENT,
        "app.kubernetes.io/managed-by": "argotune",
    }
