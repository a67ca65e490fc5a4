"""The pod of a server: vLLM with the serving middleware, on nodes with GPUs, as restricted as the pods of a run.

The server watches a mounted ConfigMap with its adapters (``adapter_reloader``), so another adapter needs no other pod,
and a restarted pod has the current adapters.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from steps.kubernetes.pod_policy import (
    CONTAINER_SECURITY_CONTEXT,
    DO_NOT_DISRUPT,
    GPU_TOLERATIONS,
    INSTANCE_TYPE_LABEL,
    POD_SECURITY_CONTEXT,
    QUEUE_LABEL,
    escape_references,
    preferred_nodes,
    require_label,
)
from steps.oci import secret_volume
from steps.rollout import server_access, server_pod_options
from steps.rollout.service_release import SERVICE_LABEL
from steps.rollout.settings import Settings
from steps.serving import desired_adapters, metrics_address
from steps.serving.drain import DRAIN_SECONDS, PORT

Document = dict[str, Any]
SERVER = "server"
CONFIG, ADAPTERS, MODELS, VOLUMES = "/etc/argotune", "/mnt/adapters", "/mnt/models", "/mnt/adapter"
API_KEYS, MODEL_SECRET = "/mnt/api-keys", "/mnt/model-secret"


def build_pod(settings: Settings, arguments: Mapping[str, Any]) -> Document:
    """Return the pod template of a server without its adapters, or the custom pod of the Workspace."""
    labels = {"azure.workload.identity/use": "true"} if settings.service_account else {}
    labels |= _queue_label(settings) if settings.gpus else {}
    if settings.template:
        return _custom_pod(settings.template, settings)
    pod: Document = {
        "metadata": {
            "labels": labels,
            "annotations": dict(DO_NOT_DISRUPT),
        },
        "spec": {
            **({"serviceAccountName": settings.service_account} if settings.service_account else {}),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": DRAIN_SECONDS + 30,
            "securityContext": POD_SECURITY_CONTEXT,
            **_scheduling(settings),
            "containers": [_server(settings, arguments)],
            "volumes": _volumes(settings),
        },
    }  # fmt: skip
    return server_pod_options.apply(settings.pod_options, pod)


def _custom_pod(template: Mapping[str, Any], settings: Settings) -> Document:
    """Return the custom pod on the nodes of ``resource``, as KAITO schedules it; its own settings are kept."""
    custom = copy.deepcopy(dict(template))
    metadata, spec = custom.get("metadata") or {}, custom.get("spec") or {}
    annotations = {key: metadata[key] for key in ("annotations",) if metadata.get(key)}
    if settings.node_labels:
        spec["nodeSelector"] = {**settings.node_labels, **(spec.get("nodeSelector") or {})}
    given = spec.get("tolerations") or []
    spec["tolerations"] = [*given, *(toleration for toleration in GPU_TOLERATIONS if toleration not in given)]
    if settings.instance_types or settings.preferred_nodes:
        affinity = spec.get("affinity") or {}
        own = affinity.get("nodeAffinity") or {}
        spec["affinity"] = {**affinity, "nodeAffinity": _combine(own, _nodes(settings))}
    labels = {**_queue_label(settings), **(metadata.get("labels") or {})}
    return {"metadata": {**annotations, "labels": labels}, "spec": spec}


def _queue_label(settings: Settings) -> dict[str, str]:
    return {QUEUE_LABEL: settings.queue} if settings.queue else {}


def _combine(one: Document, other: Document) -> Document:
    """Return the node affinity that requires both, and prefers what either does."""
    required, preferred = (f"{kind}DuringSchedulingIgnoredDuringExecution" for kind in ("required", "preferred"))
    combined: Document = {}
    # A node must match one term, and all expressions in it.
    terms = [
        {
            key: [*(first.get(key) or []), *(second.get(key) or [])]
            for key in ("matchExpressions", "matchFields")
            if first.get(key) or second.get(key)
        }
        for first in (one.get(required) or {}).get("nodeSelectorTerms") or [{}]
        for second in (other.get(required) or {}).get("nodeSelectorTerms") or [{}]
    ]
    if any(terms):
        combined[required] = {"nodeSelectorTerms": terms}
    if preferences := [*(one.get(preferred) or []), *(other.get(preferred) or [])]:
        combined[preferred] = preferences
    return combined


def user_port(template: Mapping[str, Any]) -> int:
    """Return the first port of a custom pod, or KAITO's if it has none."""
    containers = (template.get("spec") or {}).get("containers") or []
    ports = [port["containerPort"] for container in containers for port in container.get("ports") or []]
    return int(ports[0]) if ports else PORT


def has_metrics(settings: Settings) -> bool:
    """Return True if the servers have metrics on a port of their own; a custom pod decides for itself."""
    return not settings.template and settings.runtime == "vllm"


def _server(settings: Settings, arguments: Mapping[str, Any]) -> Document:
    flags = {
        "preset": settings.preset,
        "model": settings.model,
        "revision": settings.revision,
        "server-arguments": json.dumps(arguments, sort_keys=True),
        **({"runtime": settings.runtime} if settings.runtime != "vllm" else {}),
        **({"nodes": str(settings.nodes)} if settings.nodes > 1 else {}),
    }
    access = server_access.environment(settings, API_KEYS)
    environment = [
        {"name": desired_adapters.FILE_VARIABLE, "value": f"{CONFIG}/adapters.json"},
        {"name": desired_adapters.FOLDER_VARIABLE, "value": ADAPTERS},
        {"name": "HF_HOME", "value": f"{MODELS}/huggingface"},
        *({"name": name, "value": value} for name, value in access.items() if value),
    ]
    ports = {"http": PORT}
    if has_metrics(settings):
        ports["metrics"] = metrics_address.PORT
        environment.append({"name": metrics_address.ADDRESS_VARIABLE, "value": f"0.0.0.0:{metrics_address.PORT}"})
    if settings.access_secret:
        secret = {"name": settings.access_secret, "key": "HF_TOKEN"}
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})  # type: ignore[dict-item]
    if settings.registry_secrets:
        environment.append({"name": "DOCKER_CONFIG", "value": "/mnt/pull-secret"})
    environment += server_access.model_environment(settings, MODEL_SECRET)
    return {
        "name": SERVER,
        "image": settings.serve_image,
        "command": ["python", "-m", "steps.serving.serve_pod"],
        "args": [word for flag, value in flags.items() for word in (f"--{flag}", escape_references(value))],
        "env": environment,
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "resources": _resources(settings),
        # Loading the model can take as long as the rollout waits; then three failed probes restart the server.
        "startupProbe": _probe("/health", 10, max(6, int(settings.deadline_seconds / 10))),
        "livenessProbe": _probe("/health", 10, 3),
        "readinessProbe": _probe("/ready", 5, 2),
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "steps.serving.drain"]}}},
        "securityContext": CONTAINER_SECURITY_CONTEXT,
        "volumeMounts": [
            {"name": "wanted", "mountPath": CONFIG, "readOnly": True},
            {"name": "adapters", "mountPath": ADAPTERS},
            {"name": "models", "mountPath": MODELS},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            *([{"name": "pull-secret", "mountPath": "/mnt/pull-secret", "readOnly": True}]
              if settings.registry_secrets else []),
            *([{"name": "model-secret", "mountPath": MODEL_SECRET, "readOnly": True}]
              if settings.model_pull_secret else []),
            *([{"name": "api-keys", "mountPath": API_KEYS, "readOnly": True}] if settings.api_keys_secret else []),
            *({"name": f"adapter-{name}", "mountPath": f"{VOLUMES}/{name}", "readOnly": True}
              for name in settings.adapter_volumes),
        ],
    }  # fmt: skip


def _resources(settings: Settings) -> Document:
    requests = {"cpu": "2", "memory": "8Gi"}
    gpus = {settings.gpu_resource: str(settings.gpus)} if settings.gpus else {}
    return {"requests": {**requests, **gpus}, **({"limits": gpus} if gpus else {})}


def _probe(path: str, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(settings: Settings) -> list[Document]:
    models = (
        {"persistentVolumeClaim": {"claimName": settings.models_claim}} if settings.models_claim else {"emptyDir": {}}
    )
    volumes: list[Document] = [
        {"name": "wanted", "configMap": {"name": ""}},  # deployment() sets the name for the revision
        {"name": "adapters", "emptyDir": {}},
        {"name": "models", **models},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if settings.registry_secrets:
        volumes.append({"name": "pull-secret", **secret_volume.volume_source(settings.registry_secrets)})
    if settings.model_pull_secret:
        volumes.append({"name": "model-secret", **secret_volume.volume_source([settings.model_pull_secret])})
    if settings.api_keys_secret:
        # Required, as a server without keys would answer nobody; the whole Secret, so that new entries appear.
        volumes.append({"name": "api-keys", "secret": {"secretName": settings.api_keys_secret}})
    volumes += [{"name": f"adapter-{name}", **volume} for name, volume in settings.adapter_volumes.items()]
    return volumes


def _scheduling(settings: Settings) -> Document:
    """Return node labels, tolerations, and a spread of the servers over nodes if there are several."""
    scheduling: Document = {
        "tolerations": GPU_TOLERATIONS,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {SERVICE_LABEL: settings.name}},
            }
        ],
    }  # fmt: skip
    if settings.node_labels:
        scheduling["nodeSelector"] = settings.node_labels
    if settings.instance_types or settings.preferred_nodes:
        scheduling["affinity"] = {"nodeAffinity": _nodes(settings)}
    return scheduling


def _nodes(settings: Settings) -> Document:
    affinity: Document = {}
    types = settings.instance_types
    if preferred := preferred_nodes(types, settings.preferred_nodes):
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    if types:
        terms = [require_label(INSTANCE_TYPE_LABEL, *types)]
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return affinity
