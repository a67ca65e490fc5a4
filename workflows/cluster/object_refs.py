"""Check of the cluster objects that a plan references (``argotune validate --cluster``).

Checked are the namespace, Secrets (type, keys and registry), ConfigMaps, claims, storage classes and service accounts.
Objects that the user is not allowed to read are reported as unchecked, not as missing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from steps.models import locations
from steps.oci import reference
from steps.runtime.errors import BadInput
from steps.runtime.json_text import parse_json
from steps.serving import api_keys
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
    """Findings for the objects of one plan."""

    cluster: KubernetesWorkflows
    problems: list[Problem] = field(default_factory=list)
    """Objects that are missing or invalid."""
    unchecked: list[Problem] = field(default_factory=list)
    """Objects that the credentials are not allowed to read."""

    def check(self, plan: Plan) -> None:
        """Check all objects that the plan references.

        Raises:
            ApiFailure: the cluster is unreachable or rejects the credentials.
        """
        namespace = self.cluster.namespace
        if self._find("v1", "namespaces", namespace, "namespace", cluster_wide=True) is None:
            self._report("namespace", f"namespace {namespace} not found", f"run kubectl create namespace {namespace}")
            return
        self._check_registry_secrets(plan)
        self._check_access_secret(plan)
        self._check_store_secrets(plan)
        self._check_api_keys(plan)
        self._check_tracking_secret(plan)
        self._check_storage(plan)
        self._check_volumes(plan)
        self._check_accounts(plan)
        self._check_semaphore(plan)

    def _check_registry_secrets(self, plan: Plan) -> None:
        if plan.output and plan.output.push_secret:
            secrets = [plan.output.push_secret]
            self._check_pulls_and_pushes("tuning.output.imagePushSecret", secrets, [plan.output.image])
        if plan.data:
            secrets = plan.data.image_pull_secrets
            self._check_pulls_and_pushes("tuning.input.imagePullSecrets", secrets, [plan.data.image])
        if plan.model.image_pull_secret:
            path, secrets = "presetOptions.imagePullSecrets", [plan.model.image_pull_secret]
            self._check_pulls_and_pushes(path, secrets, [plan.model.repository.removeprefix(locations.IMAGE)])
        if plan.rollout:
            images = [adapter.image for adapter in plan.rollout.adapters]
            path = "inference.adapters[].source.imagePullSecrets"
            self._check_pulls_and_pushes(path, plan.rollout.pull_secrets, images)

    def _check_pulls_and_pushes(self, path: str, names: list[str], images: list[str]) -> None:
        """Report Secrets that are missing or invalid; if all are valid, the registries that none is for."""
        found = [self._registries_of(path, name) for name in names]
        known = [registries for registries in found if registries is not None]
        if not names or len(known) < len(names):
            return
        registries = set().union(*known)
        secrets = f"Secret {names[0]} has" if len(names) == 1 else f"Secrets {', '.join(names)} have"
        existing = f"only for {', '.join(sorted(registries))}" if registries else "for none"
        for registry in sorted({_registry(image) for image in images if image} - registries - {""}):
            self._report(path, f"{secrets} no credentials for {registry}, {existing}", self._secret_fix(names[0]))

    def _registries_of(self, path: str, name: str) -> set[str] | None:
        """Return the registries that a Secret has credentials for; None if it is missing or invalid."""
        secret = self._find("v1", "secrets", name, path)
        if secret is None:
            return None
        registries = _registries(secret)
        if secret.get("type") != REGISTRY_SECRET:
            message = f"Secret {name} has type {secret.get('type')}, not {REGISTRY_SECRET}"
            self._report(path, message, self._secret_fix(name))
            return None
        if registries is None:
            self._report(path, f"Secret {name} has no valid .dockerconfigjson", self._secret_fix(name))
        return registries

    def _secret_fix(self, name: str) -> str:
        create = f"run kubectl create secret docker-registry {name} --namespace {self.cluster.namespace}"
        return f"{create} --docker-server=REGISTRY --docker-username=USER ..."

    def _check_access_secret(self, plan: Plan) -> None:
        name, path = plan.model.access_secret, "presetOptions.modelAccessSecret"
        secret = self._find("v1", "secrets", name, path) if name else None
        if secret is not None and not (secret.get("data") or {}).get("HF_TOKEN"):
            namespace = f"--namespace {self.cluster.namespace}"
            fix = f"run kubectl create secret generic {name} {namespace} --from-literal=HF_TOKEN=..."
            self._report(path, f"Secret {name} has no key HF_TOKEN", fix)

    def _check_store_secrets(self, plan: Plan) -> None:
        """Report missing Secrets of object stores; their keys are optional, because they differ by store."""
        if plan.model.secret:
            self._find("v1", "secrets", plan.model.secret, "pipeline.model.secret")
        if plan.data and plan.data.secret:
            self._find("v1", "secrets", plan.data.secret, "pipeline.data.secret")

    def _check_api_keys(self, plan: Plan) -> None:
        name, path = plan.rollout.api_keys_secret if plan.rollout else "", "pipeline.rollout.apiKeysSecret"
        secret = self._find("v1", "secrets", name, path) if name else None
        if secret is None:
            return
        decoded = {key: _decode(value) for key, value in (secret.get("data") or {}).items()}
        wrong = {key: problem for key, text in decoded.items() if (problem := api_keys.key_problem(text.strip()))}
        for key, problem in wrong.items():
            self._report(path, f"entry {key} of Secret {name} is not an API key: {problem}", "replace it")
        if not decoded:
            self._report(path, f"Secret {name} has no entries", api_keys.creation_fix(name, self.cluster.namespace))

    def _check_tracking_secret(self, plan: Plan) -> None:
        tracking, path = plan.tracking, "pipeline.tracking.secret"
        if not tracking or tracking.report_to == "none" or not tracking.secret:
            return
        secret = self._find("v1", "secrets", tracking.secret, path)
        keys = required_keys(tracking.report_to, addressed=bool(tracking.uri))
        if secret is not None and not any((secret.get("data") or {}).get(key) for key in keys):
            namespace = f"--namespace {self.cluster.namespace}"
            fix = f"run kubectl create secret generic {tracking.secret} {namespace} --from-literal={keys[0]}=..."
            self._report(path, f"Secret {tracking.secret} has no key {' or '.join(keys)}", fix)

    def _check_storage(self, plan: Plan) -> None:
        storage_class = plan.storage.storage_class
        if storage_class:
            path = "pipeline.storage.storageClassName"
            self._find("storage.k8s.io/v1", "storageclasses", storage_class, path, cluster_wide=True)
        elif (classes := self._list("storage.k8s.io/v1", "storageclasses", "pipeline.storage")) is not None:
            defaults = [item for item in classes if _annotations(item).get(DEFAULT_CLASS) == "true"]
            if not defaults:
                names = ", ".join(sorted(item["metadata"]["name"] for item in classes)) or "none"
                message = f"the cluster has no default storage class (it has {names})"
                self._report("pipeline.storage", message, "set pipeline: {storage: {storageClassName: NAME}}")

    def _check_volumes(self, plan: Plan) -> None:
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
            for resource, name in _referenced_objects(source or {}):
                self._find("v1", resource, name, path)

    def _check_accounts(self, plan: Plan) -> None:
        accounts = {"serviceAccount": plan.service_account}
        accounts |= {f"serviceAccounts.{step}": account for step, account in plan.service_accounts.items()}
        for path, account in accounts.items():
            self._find("v1", "serviceaccounts", account, path, fix="run kubectl apply -k argo/install")

    def _check_semaphore(self, plan: Plan) -> None:
        lock = plan.semaphore
        if not lock.config_map or not lock.key:
            return
        fix = "run kubectl apply -k argo/install, or clear semaphore.key in the site profile"
        config_map = self._find("v1", "configmaps", lock.config_map, "semaphore.configMap", fix=fix)
        if config_map is not None and lock.key not in (config_map.get("data") or {}):
            self._report("semaphore.key", f"ConfigMap {lock.config_map} has no key {lock.key}", fix)

    def _find(
        self, version: str, resource: str, name: str, path: str, *, cluster_wide: bool = False, fix: str = ""
    ) -> dict[str, Any] | None:
        """Return the object; report it if it is missing (the caller reports a namespace) or not readable."""
        if placeholders(name):
            return None
        try:
            result = self.cluster.find(version, resource, name, cluster_wide=cluster_wide)
        except ApiFailure as failure:
            self._report_unchecked(failure, path)
            return {} if resource == "namespaces" else None
        if result is None and resource != "namespaces":
            location = "" if cluster_wide else f" in namespace {self.cluster.namespace}"
            self._report(
                path, f"{resource.removesuffix('es' if cluster_wide else 's')} {name} not found{location}", fix
            )
        return result

    def _list(self, version: str, resource: str, path: str) -> list[dict[str, Any]] | None:
        try:
            result = self.cluster.find(version, resource, cluster_wide=True)
        except ApiFailure as failure:
            self._report_unchecked(failure, path)
            return None
        return list((result or {}).get("items") or [])

    def _report_unchecked(self, failure: ApiFailure, path: str) -> None:
        if failure.status != 403:
            raise failure
        self.unchecked.append(Problem(f"not checked: {failure.message}", path, fix=failure.fix))

    def _report(self, path: str, message: str, fix: str) -> None:
        self.problems.append(Problem(message, path, fix=fix))


def _registries(secret: Mapping[str, Any]) -> set[str] | None:
    """Return the registries that a dockerconfigjson Secret has credentials for; None if it is invalid."""
    try:
        text = base64.b64decode((secret.get("data") or {})[".dockerconfigjson"], validate=True)
        entries = parse_json(text)["auths"]
        return {_host(name) for name, entry in entries.items() if entry}
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error):
        return None


def _decode(value: Any) -> str:
    try:
        return base64.b64decode(value, validate=True).decode("latin-1")
    except (TypeError, ValueError, binascii.Error):
        return ""


def _registry(image: str) -> str:
    try:
        return _host(reference.parse(image).registry)
    except BadInput:
        return ""


def _host(registry: str) -> str:
    """Return the host of a registry that ``docker login`` wrote (with scheme, path or a Docker Hub alias)."""
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0].lower()
    return DOCKER_HUB[0] if host in DOCKER_HUB else host


def _referenced_objects(source: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield resource and name of each object that a VolumeSource references."""
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
