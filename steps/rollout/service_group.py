"""A server on several nodes: a group of pods, of which the first one (the leader) answers requests.

LeaderWorkerSet (https://lws.sigs.k8s.io) has one group for each server, and replaces a whole group if one of its pods
restarts. Without it, a StatefulSet with a headless Service has the pods of one server. Neither ends an update that
does not come up: deadline and rollback are those of ``service_update``. All pods have one template: each finds its
rank and the leader in its environment (``steps.serving.group_environment``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from steps.kubernetes import access_reviews
from steps.kubernetes.client import SERVICES, Kind, KubernetesClient
from steps.kubernetes.errors import Forbidden
from steps.kubernetes.pod_policy import QUEUE_LABEL
from steps.rollout.settings import Settings
from steps.runtime.errors import BadInput
from steps.serving import group_environment

Document = dict[str, Any]
GroupKind = str
"""Object with the pods of a server on several nodes: ``leaderworkerset`` or ``statefulset``; empty: a Deployment."""
LEADER_WORKER_SETS = Kind("leaderworkerset.x-k8s.io/v1", "leaderworkersets")
STATEFUL_SETS = Kind("apps/v1", "statefulsets")
COMPONENT_LABEL, COMPONENT = "app.kubernetes.io/component", "inference"
WORKER_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
POD_INDEX = "apps.kubernetes.io/pod-index"
RANK_LABELS = {"leaderworkerset": WORKER_INDEX, "statefulset": POD_INDEX}
"""Label with the rank of a pod, set by the controllers."""
MAX_NAME_LENGTH = 51
"""Maximum length of the name of a LeaderWorkerSet, whose pods get two numbers and a hash."""


def choose_kind(cluster: KubernetesClient, settings: Settings) -> GroupKind:
    """Return the kind of the object with the pods; empty if a server has one node.

    Raises:
        BadInput: The cluster lacks the kind that the settings require.
    """
    if settings.nodes == 1:
        return ""
    if settings.group_kind == "statefulset":
        return _stateful_set(settings, "pipeline.rollout.groupKind is statefulset")
    if cluster.has_kind(LEADER_WORKER_SETS) and (settings.group_kind != "auto" or _is_allowed(cluster)):
        name = set_name(settings.name, "leaderworkerset")
        if len(name) > MAX_NAME_LENGTH:
            fix = f"shorten the Workspace's name by {len(name) - MAX_NAME_LENGTH} characters"
            raise BadInput(f"LeaderWorkerSet {name} would have a name of more than {MAX_NAME_LENGTH} characters", fix)
        return "leaderworkerset"
    absent = f"the cluster has no {LEADER_WORKER_SETS.qualified} ({LEADER_WORKER_SETS.api_version})"
    if settings.group_kind == "leaderworkerset":
        fix = "install LeaderWorkerSet (https://lws.sigs.k8s.io), or set groupKind: auto"
        raise BadInput(f"{absent}, which pipeline.rollout.groupKind requires", fix)
    return _stateful_set(settings, absent)


def set_name(name: str, group: GroupKind) -> str:
    """Return the name of the object with the pods.

    It is not that of the service: LeaderWorkerSet names a headless Service and a StatefulSet after itself. The two
    kinds have different names, so that one can replace the other.
    """
    return f"{name}-group" if group == "leaderworkerset" else f"{name}-nodes"


def join_nodes(pod: Document, name: str, group: GroupKind) -> Document:
    """Return the pod template for each node of a group: with its rank, its address and its leader."""
    if not group:
        return pod
    joined = copy.deepcopy(pod)
    (server,) = joined["spec"]["containers"]
    server["env"] += [
        _from_field(group_environment.RANK_VARIABLE, f"metadata.labels['{RANK_LABELS[group]}']"),
        # Otherwise vLLM chooses an address by the route to the internet.
        _from_field("VLLM_HOST_IP", "status.podIP"),
    ]
    if group == "statefulset":
        own = set_name(name, group)
        server["env"].append({"name": group_environment.LEADER_VARIABLES[0], "value": f"{own}-0.{own}"})
    return joined


def objects(
    metadata: Document, template: Document, group: GroupKind, nodes: int, replicas: int
) -> list[tuple[Kind, Document]]:
    """Return the objects with the pods of a release.

    Args:
        metadata: Name of the service, labels and annotations of the object.
        template: Pod template with the labels of the release.
        group: Kind of the object, not "".
        nodes: Pods of a server.
        replicas: Number of servers.
    """
    own = {**metadata, "name": set_name(metadata["name"], group)}
    template["metadata"]["labels"][COMPONENT_LABEL] = component(group)
    # Kueue admits all pods of a server or none, by the label of the object.
    if queue := template["metadata"]["labels"].pop(QUEUE_LABEL, ""):
        own["labels"] = {**own["labels"], QUEUE_LABEL: queue}
    if group == "leaderworkerset":
        return [(LEADER_WORKER_SETS, _leader_worker_set(own, template, nodes, replicas))]
    labels = template["metadata"]["labels"]
    select = {key: labels[key] for key in metadata["labels"]}
    return [
        (SERVICES, _headless_service(own, select)),
        (STATEFUL_SETS, _build_stateful_set(own, template, select, nodes)),
    ]


def kinds(group: GroupKind) -> list[Kind]:
    """Return the kinds of ``objects``, the one with the pods last."""
    return [LEADER_WORKER_SETS] if group == "leaderworkerset" else [SERVICES, STATEFUL_SETS]


def server_selector(group: GroupKind) -> dict[str, str]:
    """Return the labels of the pods that answer requests, in addition to those of the service.

    While one kind replaces another, the service has pods of both: they differ in their component.
    """
    return {COMPONENT_LABEL: component(group)} | ({RANK_LABELS[group]: "0"} if group else {})


def kind_of_pod(labels: Mapping[str, str]) -> GroupKind:
    """Return the kind of the object that has a pod, by its labels; empty: a Deployment."""
    # The pods of a LeaderWorkerSet are those of StatefulSets, so they have both labels.
    return next((group for group, label in RANK_LABELS.items() if label in labels), "")


def component(group: GroupKind) -> str:
    """Return the component of the pods of a kind; that of a Deployment is the one of the other objects."""
    return f"{COMPONENT}-{group}" if group else COMPONENT


def _is_allowed(cluster: KubernetesClient) -> bool:
    """Return False if the account has no role for LeaderWorkerSets, as where argo/install is older than they are."""
    try:
        if access_reviews.is_allowed(cluster, "create", LEADER_WORKER_SETS):
            return True
    except Forbidden:
        pass  # a cluster whose accounts cannot review their permissions
    message = "the account may not use LeaderWorkerSets, so a StatefulSet has the pods (argo/install/roles.yaml)"
    print(message, flush=True)
    return False


def _stateful_set(settings: Settings, reason: str) -> GroupKind:
    if settings.replicas > 1:
        message = f"{settings.replicas} servers of {settings.nodes} nodes require LeaderWorkerSet: {reason}"
        raise BadInput(message, "install LeaderWorkerSet (https://lws.sigs.k8s.io), or set replicas: 1")
    return "statefulset"


def _leader_worker_set(metadata: Document, template: Document, nodes: int, replicas: int) -> Document:
    return {
        "apiVersion": LEADER_WORKER_SETS.api_version,
        "kind": "LeaderWorkerSet",
        "metadata": metadata,
        "spec": {
            "replicas": replicas,
            # No leader waits for its followers to be created, nor they for it: node_group does that.
            "startupPolicy": "LeaderCreated",
            # One group after another, on the nodes of the old one: a second group would need as many nodes again.
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 0},
            },
            "leaderWorkerTemplate": {
                "size": nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "workerTemplate": template,
            },
        },
    }


def _build_stateful_set(metadata: Document, template: Document, select: Document, nodes: int) -> Document:
    return {
        "apiVersion": STATEFUL_SETS.api_version,
        "kind": "StatefulSet",
        "metadata": metadata,
        "spec": {
            "serviceName": metadata["name"],
            "replicas": nodes,
            "selector": {"matchLabels": select},
            # All pods start together, and are replaced together: by service_update.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "template": template,
        },
    }


def _headless_service(metadata: Document, select: Document) -> Document:
    """Return the Service that gives each pod a DNS name, before it is ready."""
    labels = metadata["labels"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": metadata["name"], "labels": labels},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": select,
            "ports": [{"name": "group", "port": group_environment.GROUP_PORT, "protocol": "TCP"}],
        },
    }


def _from_field(name: str, path: str) -> Document:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
