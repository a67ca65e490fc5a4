"""The pod of a server: vLLM with what stands in front of it, on nodes with GPUs, as safe as pods of a run are.

It gets its adapters from a file (a mounted ConfigMap) and follows it, see ``adapter_switch``; so another adapter
needs no other pod, and a pod that starts anew has the adapters that are wanted by then.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from steps.rollout.settings import Settings
from steps.serving import desired_adapters
from steps.serving.drain import DRAIN_SECONDS, PORT

Document = dict[str, Any]
SERVER = "server"
SERVICE_LABEL = "argotune.dev/service"
CONFIG, ADAPTERS, MODELS, VOLUMES = "/etc/argotune", "/mnt/adapters", "/mnt/models", "/mnt/adapter"


def build_pod(given: Settings, arguments: Mapping[str, Any]) -> Document:
    """Pod of a server, all but the list of its adapters; the user's own, where the Workspace has one."""
    labels = {"azure.workload.identity/use": "true"} if given.service_account else {}
    if given.template:
        own = copy.deepcopy(given.template)
        metadata = own.get("metadata") or {}
        kept = {key: metadata[key] for key in ("annotations",) if metadata.get(key)}
        return {"metadata": {**kept, "labels": metadata.get("labels") or {}}, "spec": own.get("spec") or {}}
    return {
        # Neither of the usual autoscalers may move a server to tidy up.
        "metadata": {
            "labels": labels,
            "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                            "karpenter.sh/do-not-disrupt": "true"},
        },
        "spec": {
            **({"serviceAccountName": given.service_account} if given.service_account else {}),
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": DRAIN_SECONDS + 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **_where(given),
            "containers": [_server(given, arguments)],
            "volumes": _volumes(given),
        },
    }  # fmt: skip


def user_port(template: Mapping[str, Any]) -> int:
    """First port of a pod of the user's own; KAITO's where it names none."""
    containers = (template.get("spec") or {}).get("containers") or []
    ports = [port["containerPort"] for container in containers for port in container.get("ports") or []]
    return int(ports[0]) if ports else PORT


def _server(given: Settings, arguments: Mapping[str, Any]) -> Document:
    flags = {
        "preset": given.preset,
        "model": given.model,
        "revision": given.revision,
        "server-arguments": json.dumps(arguments, sort_keys=True),
    }
    environment = [
        {"name": desired_adapters.FILE_VARIABLE, "value": f"{CONFIG}/adapters.json"},
        {"name": desired_adapters.FOLDER_VARIABLE, "value": ADAPTERS},
        {"name": "HF_HOME", "value": f"{MODELS}/huggingface"},
    ]
    if given.access_secret:
        secret = {"name": given.access_secret, "key": "HF_TOKEN"}
        environment.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})  # type: ignore[dict-item]
    if given.registry_secret:
        environment.append({"name": "DOCKER_CONFIG", "value": "/mnt/pull-secret"})
    return {
        "name": SERVER,
        "image": given.serve_image,
        "command": ["python", "-m", "steps.serving.serve_pod"],
        "args": [word for flag, value in flags.items() for word in (f"--{flag}", value)],
        "env": environment,
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "resources": _resources(given),
        # Loading the model may take as long as the rollout waits; afterwards three misses restart a server.
        "startupProbe": _probe("/health", 10, max(6, int(given.deadline_seconds / 10))),
        "livenessProbe": _probe("/health", 10, 3),
        "readinessProbe": _probe("/ready", 5, 2),
        "lifecycle": {"preStop": {"exec": {"command": ["python", "-m", "steps.serving.drain"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "wanted", "mountPath": CONFIG, "readOnly": True},
            {"name": "adapters", "mountPath": ADAPTERS},
            {"name": "models", "mountPath": MODELS},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
            *([{"name": "pull-secret", "mountPath": "/mnt/pull-secret", "readOnly": True}]
              if given.registry_secret else []),
            *({"name": f"adapter-{name}", "mountPath": f"{VOLUMES}/{name}", "readOnly": True}
              for name in given.adapter_volumes),
        ],
    }  # fmt: skip


def _resources(given: Settings) -> Document:
    requests = {"cpu": "2", "memory": "8Gi"}
    gpus = {given.gpu_resource: str(given.gpus)} if given.gpus else {}
    return {"requests": {**requests, **gpus}, **({"limits": gpus} if gpus else {})}


def _probe(path: str, period: int, failures: int) -> Document:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _volumes(given: Settings) -> list[Document]:
    models = {"persistentVolumeClaim": {"claimName": given.models_claim}} if given.models_claim else {"emptyDir": {}}
    found: list[Document] = [
        {"name": "wanted", "configMap": {"name": ""}},  # deployment() fills in that of the revision
        {"name": "adapters", "emptyDir": {}},
        {"name": "models", **models},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]
    if given.registry_secret:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        secret = {"secretName": given.registry_secret, "items": items, "optional": True}
        found.append({"name": "pull-secret", "secret": secret})
    found += [{"name": f"adapter-{name}", **volume} for name, volume in given.adapter_volumes.items()]
    return found


def _where(given: Settings) -> Document:
    """KAITO's node labels and taint, Azure's spot taint; servers of one service on several nodes, if there are."""
    found: Document = {
        "tolerations": [
            {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot",
             "effect": "NoSchedule"},
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {SERVICE_LABEL: given.name}},
            }
        ],
    }  # fmt: skip
    if given.node_labels:
        found["nodeSelector"] = given.node_labels
    if given.instance_types or given.preferred_nodes:
        found["affinity"] = {"nodeAffinity": _nodes(given.instance_types, given.preferred_nodes)}
    return found


def _nodes(types: list[str], names: list[str]) -> Document:
    def is_in(values: list[str]) -> Document:
        wanted = {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": values}
        return {"matchExpressions": [wanted]}

    several = types if len(types) > 1 else []
    preferred: list[Document] = [
        {"weight": max(50 - at, 1), "preference": is_in([size])} for at, size in enumerate(several)
    ]
    for name in names:
        named = {"key": "metadata.name", "operator": "In", "values": [name]}
        preferred.append({"weight": 10, "preference": {"matchFields": [named]}})
    found: Document = {"preferredDuringSchedulingIgnoredDuringExecution": preferred} if preferred else {}
    if types:
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [is_in(types)]}
    return found
