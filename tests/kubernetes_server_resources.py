"""Resources of the fake Kubernetes API, their paths, and its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind that the server stores."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = False
    """Status is written through the ``status`` subresource only."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As in error messages and RBAC: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def has_generation(self) -> bool:
        """Return True if the server counts changes of the spec."""
        core = self.group in ("", "rbac.authorization.k8s.io", "storage.k8s.io", "coordination.k8s.io")
        return not core or self.plural == "pods"

    @property
    def custom(self) -> bool:
        """Return True for custom resources: their lists are atomic, and they have no strategic merge patch."""
        return ("." in self.group and not self.group.endswith(".k8s.io")) or self.group.startswith("gateway.")


def _table() -> list[Resource]:
    named = {
        "v1": "pods:Pod! services:Service! nodes:Node!* namespaces:Namespace!* events:Event configmaps:ConfigMap "
        "secrets:Secret serviceaccounts:ServiceAccount persistentvolumeclaims:PersistentVolumeClaim! "
        "persistentvolumes:PersistentVolume!* resourcequotas:ResourceQuota! endpoints:Endpoints",
        "apps/v1": "deployments:Deployment! replicasets:ReplicaSet! statefulsets:StatefulSet! daemonsets:DaemonSet!",
        "batch/v1": "jobs:Job! cronjobs:CronJob!",
        "rbac.authorization.k8s.io/v1": "roles:Role rolebindings:RoleBinding clusterroles:ClusterRole* "
        "clusterrolebindings:ClusterRoleBinding*",
        "autoscaling/v2": "horizontalpodautoscalers:HorizontalPodAutoscaler!",
        "policy/v1": "poddisruptionbudgets:PodDisruptionBudget!",
        "networking.k8s.io/v1": "networkpolicies:NetworkPolicy ingresses:Ingress!",
        "storage.k8s.io/v1": "storageclasses:StorageClass*",
        "discovery.k8s.io/v1": "endpointslices:EndpointSlice",
        "coordination.k8s.io/v1": "leases:Lease",
        "apiextensions.k8s.io/v1": "customresourcedefinitions:CustomResourceDefinition!*",
        "gateway.networking.k8s.io/v1": "httproutes:HTTPRoute! gateways:Gateway! gatewayclasses:GatewayClass!*",
        "keda.sh/v1alpha1": "scaledobjects:ScaledObject!",
        # Argo's definitions have no status subresource: its controller writes whole objects.
        "argoproj.io/v1alpha1": "workflows:Workflow workflowtemplates:WorkflowTemplate cronworkflows:CronWorkflow "
        "clusterworkflowtemplates:ClusterWorkflowTemplate* workflowtaskresults:WorkflowTaskResult "
        "workflowtasksets:WorkflowTaskSet",
        "jobset.x-k8s.io/v1alpha2": "jobsets:JobSet!",
        "leaderworkerset.x-k8s.io/v1": "leaderworkersets:LeaderWorkerSet!",
        "karpenter.sh/v1": "nodepools:NodePool!* nodeclaims:NodeClaim!*",
        "karpenter.azure.com/v1beta1": "aksnodeclasses:AKSNodeClass!*",
        "kaito.sh/v1beta1": "workspaces:Workspace!",
    }
    found = []
    for api_version, words in named.items():
        group, _, version = api_version.rpartition("/")
        for word in words.split():
            plural, _, kind = word.partition(":")
            found.append(Resource(group, version, plural, kind.strip("!*"), "*" not in kind, "!" in kind))
    return found


RESOURCES = _table()
"""``!`` in the table: has a status subresource; ``*``: not in a namespace."""


@dataclass
class Call:
    """A request in the terms of RBAC."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    user: str = ""
    user_agent: str = ""
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {resource}"


class Refused(Exception):
    """An answer that is a ``Status`` of failure (apimachinery ``metav1.Status``)."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        causes: list[Object] | None = None,
        details: Object | None = None,
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.details = {**(details or {}), **({"causes": causes} if causes else {})}

    def status(self) -> Object:
        shown = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message}
        return {**shown, "reason": self.reason, "details": self.details, "code": self.code}


class NoSuchGroup(Exception):
    """A path of a group or version that is not served: the answer is plain text, without a Status."""


def unknown_path() -> Refused:
    return Refused(404, "NotFound", "the server could not find the requested resource")


def not_found(resource: Resource, name: str) -> Refused:
    return Refused(404, "NotFound", f'{resource.qualified} "{name}" not found', details=details_of(resource, name))


def already_exists(resource: Resource, name: str) -> Refused:
    message = f'{resource.qualified} "{name}" already exists'
    return Refused(409, "AlreadyExists", message, details=details_of(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> Refused:
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return Refused(409, "Conflict", message, details=details_of(resource, name))


def invalid(resource: Resource, name: str, what: str) -> Refused:
    """An object that is not valid; ``what`` begins with the path of the field."""
    path, _, problem = what.partition(": ")
    causes = [{"reason": "FieldValueInvalid", "message": problem, "field": path}]
    message = f'{resource.kind} "{name}" is invalid: {what}'
    return Refused(422, "Invalid", message, causes=causes, details=details_of(resource, name, resource.kind))


def other_object(resource: Resource, name: str, why: str) -> Refused:
    """A precondition of a deletion that is not met: its details name the kind instead of the resource."""
    message = f'Operation cannot be fulfilled on {resource.kind} "{name}": {why}'
    return Refused(409, "Conflict", message, details=details_of(resource, name, resource.kind))


def expired() -> Refused:
    return Refused(410, "Expired", "The provided resource version is too old; list again")


def from_status(code: int) -> Refused:
    """A refusal by an HTTP status alone, as 429 and 500 of an overloaded server."""
    reason = {429: "TooManyRequests", 500: "InternalError"}.get(code, HTTPStatus(code).phrase)
    return Refused(code, reason, f"{HTTPStatus(code).phrase} (by fault injection)")


def details_of(resource: Resource, name: str, kind: str = "") -> Object:
    """The details of a Status: the object that it is about."""
    details = {"name": name, "group": resource.group, "kind": kind or resource.plural}
    return {key: value for key, value in details.items() if value}  # as Go's omitempty


def split_path(path: str) -> tuple[str, str, str, str, str, str]:
    """Group, version, namespace, plural, name and subresource of a request path (Kubernetes "API concepts").

    Raises:
        Refused: for paths of no resource.
    """
    words = path.strip("/").split("/")
    if words[0] == "api" and len(words) >= 3:
        group, version, rest = "", words[1], words[2:]
    elif words[0] == "apis" and len(words) >= 4:
        group, version, rest = words[1], words[2], words[3:]
    else:
        raise unknown_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    if len(rest) > 3:
        raise unknown_path()
    plural, name, subresource = [*rest, "", ""][:3]
    return group, version, namespace, plural, name, subresource
