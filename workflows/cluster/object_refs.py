"""What a plan names in a cluster and the cluster has not: told before a run is submitted (``validate --cluster``).

Looked at are Secrets (their type and keys, and the registry they are for), ConfigMaps, claims, storage classes,
service accounts and the namespace. What may not be read there is told, and not taken for missing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.oci import reference
from steps.runtime.errors import BadInput
from steps.tune.tracking_tools import required_keys
from workflows.cluster.failures import ApiFailure
from workflows.cluster.kubernetes_api import KubernetesWorkflows
from workflows.errors import Problem
from workflows.plan.model import Plan
from workflows.spec.names import placeholders

REGISTRY_SECRET = "kubernetes.io/dockerconfigjson"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass
class ReferencedObjects:
    """What was found for one plan."""

    cluster: KubernetesWorkflows
    problems: list[Problem] = field(default_factory=list)
    """What is missing, or is not what a run needs."""
    unread: list[Problem] = field(default_factory=list)
    """What these credentials may not read."""

    def check(self, plan: Plan) -> None:
        """Look at everything that the plan names.

        Raises:
            ApiFailure: the cluster does not answer, or does not accept the credentials.
        """
        namespace = self.cluster.namespace
        if self._find("v1", "namespaces", namespace, "namespace", cluster_wide=True) is None:
            self._lacks("namespace", f"there is no namespace {namespace}", f"kubectl create namespace {namespace}")
            return
        self._registry_secrets(plan)
        self._access_secret(plan)
        self._tracking_secret(plan)
        self._storage(plan)
        self._volumes(plan)
        self._accounts(plan)
        self._semaphore(plan)

    def _registry_secrets(self, plan: Plan) -> None:
        wanted: list[tuple[str, str, list[str]]] = []
        if plan.output and plan.output.push_secret:
            wanted.append(("tuning.output.imagePushSecret", plan.output.push_secret, [plan.output.image]))
        if plan.data and plan.data.image_pull_secrets:
            path = "tuning.input.imagePullSecrets"
            wanted.append((path, plan.data.image_pull_secrets[0], [plan.data.image]))
        if plan.rollout and plan.rollout.pull_secret:
            images = [adapter.image for adapter in plan.rollout.adapters]
            wanted.append(("inference.adapters[].source.imagePullSecrets", plan.rollout.pull_secret, images))
        for path, name, images in wanted:
            secret = self._find("v1", "secrets", name, path)
            if secret is not None:
                self._registry_secret(path, name, secret, [image for image in images if image])

    def _registry_secret(self, path: str, name: str, secret: Mapping[str, Any], images: list[str]) -> None:
        fix = f"kubectl create secret docker-registry {name} --docker-server=REGISTRY --docker-username=USER ..."
        if secret.get("type") != REGISTRY_SECRET:
            self._lacks(path, f"Secret {name} is of type {secret.get('type')}, not {REGISTRY_SECRET}", fix)
            return
        known = _registries(secret)
        if known is None:
            self._lacks(path, f"Secret {name} holds no .dockerconfigjson that is a docker configuration", fix)
            return
        for registry in sorted({_registry(image) for image in images} - known - {""}):
            has = f"only for {', '.join(sorted(known))}" if known else "for none"
            self._lacks(path, f"Secret {name} has no credentials for {registry}, {has}", fix)

    def _access_secret(self, plan: Plan) -> None:
        name, path = plan.model.access_secret, "presetOptions.modelAccessSecret"
        secret = self._find("v1", "secrets", name, path) if name else None
        if secret is not None and not (secret.get("data") or {}).get("HF_TOKEN"):
            fix = f"kubectl create secret generic {name} --from-literal=HF_TOKEN=..."
            self._lacks(path, f"Secret {name} has no key HF_TOKEN", fix)

    def _tracking_secret(self, plan: Plan) -> None:
        wanted, path = plan.tracking, "pipeline.tracking.secret"
        if not wanted or wanted.report_to == "none" or not wanted.secret:
            return
        secret = self._find("v1", "secrets", wanted.secret, path)
        keys = required_keys(wanted.report_to, addressed=bool(wanted.uri))
        if secret is not None and not any((secret.get("data") or {}).get(key) for key in keys):
            fix = f"kubectl create secret generic {wanted.secret} --from-literal={keys[0]}=..."
            self._lacks(path, f"Secret {wanted.secret} has no key {' or '.join(keys)}", fix)

    def _storage(self, plan: Plan) -> None:
        wanted = plan.storage.storage_class
        if wanted:
            path = "pipeline.storage.storageClassName"
            self._find("storage.k8s.io/v1", "storageclasses", wanted, path, cluster_wide=True)
        elif (classes := self._list("storage.k8s.io/v1", "storageclasses", "pipeline.storage")) is not None:
            defaults = [item for item in classes if _annotations(item).get(DEFAULT_CLASS) == "true"]
            if not defaults:
                names = ", ".join(sorted(item["metadata"]["name"] for item in classes)) or "none at all"
                what = f"the cluster has no default storage class (it has {names})"
                self._lacks("pipeline.storage", what, "write pipeline: {storage: {storageClassName: NAME}}")

    def _volumes(self, plan: Plan) -> None:
        if plan.model.repository:
            self._find("v1", "persistentvolumeclaims", plan.storage.models_claim, "storage.modelsClaim")
        sources: list[tuple[str, Mapping[str, Any] | None]] = [
            ("tuning.input.volumeSource", plan.data.volume if plan.data else None),
            ("tuning.output.volumeSource", plan.output.volume if plan.output else None),
        ]
        for adapter in plan.rollout.adapters if plan.rollout else []:
            sources.append((f"inference.adapters ({adapter.name})", adapter.volume))
        template = plan.rollout.template if plan.rollout else None
        for volume in ((template or {}).get("spec") or {}).get("volumes") or []:
            sources.append((f"inference.template.spec.volumes ({volume.get('name')})", volume))
        for path, source in sources:
            for resource, name in _named(source or {}):
                self._find("v1", resource, name, path)

    def _accounts(self, plan: Plan) -> None:
        accounts = {"serviceAccount": plan.service_account}
        accounts |= {f"serviceAccounts.{step}": account for step, account in plan.service_accounts.items()}
        for path, account in accounts.items():
            self._find(
                "v1", "serviceaccounts", account, path, fix="kubectl apply -k argo/install makes those it needs"
            )

    def _semaphore(self, plan: Plan) -> None:
        lock = plan.semaphore
        if not lock.config_map or not lock.key:
            return
        fix = "kubectl apply -k argo/install, or set semaphore.key to nothing in the site profile"
        found = self._find("v1", "configmaps", lock.config_map, "semaphore.configMap", fix=fix)
        if found is not None and lock.key not in (found.get("data") or {}):
            self._lacks("semaphore.key", f"ConfigMap {lock.config_map} has no key {lock.key}", fix)

    def _find(
        self, version: str, resource: str, name: str, path: str, *, cluster_wide: bool = False, fix: str = ""
    ) -> dict[str, Any] | None:
        """The object; where it is missing or may not be read, that is noted. A namespace is told by who asks."""
        if placeholders(name):
            return None
        try:
            found = self.cluster.find(version, resource, name, cluster_wide=cluster_wide)
        except ApiFailure as failure:
            self._may_not(failure, path)
            return {} if resource == "namespaces" else None
        if found is None and resource != "namespaces":
            where = "" if cluster_wide else f" in namespace {self.cluster.namespace}"
            self._lacks(path, f"there is no {resource.removesuffix('es' if cluster_wide else 's')} {name}{where}", fix)
        return found

    def _list(self, version: str, resource: str, path: str) -> list[dict[str, Any]] | None:
        try:
            found = self.cluster.find(version, resource, cluster_wide=True)
        except ApiFailure as failure:
            self._may_not(failure, path)
            return None
        return list((found or {}).get("items") or [])

    def _may_not(self, failure: ApiFailure, path: str) -> None:
        if failure.status != 403:
            raise failure
        self.unread.append(Problem(f"not checked: {failure.message}", path, fix=failure.fix))

    def _lacks(self, path: str, what: str, fix: str) -> None:
        self.problems.append(Problem(what, path, fix=fix))


def _registries(secret: Mapping[str, Any]) -> set[str] | None:
    """Registries that a dockerconfigjson Secret has credentials for; None when it is none."""
    try:
        text = base64.b64decode((secret.get("data") or {})[".dockerconfigjson"], validate=True)
        entries = json.loads(text)["auths"]
        return {_host(name) for name, entry in entries.items() if entry}
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error):
        return None


def _registry(image: str) -> str:
    try:
        return _host(reference.parse(image).registry)
    except BadInput:
        return ""


def _host(registry: str) -> str:
    """A registry as ``docker login`` may have written it: with scheme and path, or Docker Hub's other names."""
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0].lower()
    return DOCKER_HUB[0] if host in DOCKER_HUB else host


def _named(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Objects that a VolumeSource names: the resource and the name."""
    for kind, resource, key in (
        ("persistentVolumeClaim", "persistentvolumeclaims", "claimName"),
        ("secret", "secrets", "secretName"),
        ("configMap", "configmaps", "name"),
    ):
        content = source.get(kind)
        if isinstance(content, Mapping) and content.get(key) and not content.get("optional"):
            yield resource, str(content[key])
    projected = source.get("projected")
    for part in (projected.get("sources") or []) if isinstance(projected, Mapping) else []:
        for kind, resource in (("secret", "secrets"), ("configMap", "configmaps")):
            content = part.get(kind) if isinstance(part, Mapping) else None
            if isinstance(content, Mapping) and content.get("name") and not content.get("optional"):
                yield resource, str(content["name"])


def _annotations(item: Mapping[str, Any]) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("annotations") or {}
