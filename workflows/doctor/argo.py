"""Checks of Argo Workflows: its kinds, its version, and the configuration of its controller."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from steps.kubernetes.client import CONFIG_MAPS
from workflows.doctor.finding import DEFINITIONS, DEPLOYMENTS, NAMESPACES, Finding, Site, fail, not_checked, ok

KINDS = (
    "workflows", "workflowtemplates", "clusterworkflowtemplates", "cronworkflows", "workflowtaskresults",
    "workflowtasksets",
)  # fmt: skip
VERSION = "v1alpha1"
MIN_RELEASE, MAX_RELEASE = (3, 6), (4, 1)
"""Releases of Argo that compiled Workflows are for (argo/README.md)."""
_RELEASE = re.compile(r":v?((\d+)\.(\d+)[.\d]*)")
CONFIG = "workflow-controller-configmap"
INSTALL_ARGO = "install Argo Workflows 3.6 to 4.1: https://argo-workflows.readthedocs.io/en/latest/installation/"
PATCH = (
    "kubectl patch configmap {config} --namespace {namespace} --patch-file argo/install/controller-patch.yaml,"
    " or name Argo's namespace with --argo-namespace"
)


def check_kinds(site: Site) -> Iterator[Finding]:
    """Check that each kind of Argo is installed in the version that is compiled."""
    missing, other = [], []
    for plural in KINDS:
        definition = site.cluster.get(DEFINITIONS, f"{plural}.argoproj.io")
        if definition is None:
            missing.append(plural)
        elif not any(item.get("name") == VERSION and item.get("served") for item in definition["spec"]["versions"]):
            other.append(plural)
    if missing:
        yield fail("Argo kinds", f"not installed: {', '.join(missing)} (argoproj.io)", INSTALL_ARGO)
    if other:
        yield fail("Argo kinds", f"not served as argoproj.io/{VERSION}: {', '.join(other)}", INSTALL_ARGO)
    if not missing and not other:
        yield ok("Argo kinds", f"{len(KINDS)} kinds of argoproj.io/{VERSION}")


def check_controller(site: Site) -> Iterator[Finding]:
    """Check the release of the controller, by the tag of its image."""
    name = "Argo controller"
    deployments = site.cluster.list(DEPLOYMENTS, site.argo_namespace)
    found = [item for item in deployments if "workflow-controller" in item["metadata"]["name"]]
    if not found:
        fix = "name the namespace of Argo's controller with --argo-namespace"
        yield not_checked(name, f"no Deployment of it in namespace {site.argo_namespace}", fix)
        return
    deployment = found[0]
    images = [str(container.get("image")) for container in deployment["spec"]["template"]["spec"]["containers"]]
    release = next((match for image in images if (match := _RELEASE.search(image))), None)
    if not (deployment.get("status") or {}).get("availableReplicas"):
        fix = f"kubectl describe deployment {deployment['metadata']['name']} --namespace {site.argo_namespace}"
        yield fail(name, "has no available pod", fix)
    elif release is None:
        yield not_checked(name, f"no release in the tag of its image: {', '.join(images)}")
    elif not MIN_RELEASE <= (int(release[2]), int(release[3])) <= MAX_RELEASE:
        yield fail(name, f"release {release[1]} is not supported", INSTALL_ARGO)
    else:
        yield ok(name, f"release {release[1]}")


def check_configuration(site: Site) -> Iterator[Finding]:
    """Check that Argo's containers are admitted by Pod Security "restricted", if the namespace enforces it."""
    name = "Argo configuration"
    namespace = site.cluster.get(NAMESPACES, site.namespace)
    labels = (namespace or {}).get("metadata", {}).get("labels") or {}
    is_restricted = labels.get("pod-security.kubernetes.io/enforce") == "restricted"
    config_map = site.cluster.get(CONFIG_MAPS, CONFIG, site.argo_namespace)
    if config_map is None and not is_restricted:
        yield not_checked(name, f"no ConfigMap {CONFIG} in namespace {site.argo_namespace}", "use --argo-namespace")
        return
    config = _configuration(config_map or {})
    if is_restricted and not _is_admitted(config):
        message = f'Pod Security "restricted" of namespace {site.namespace} rejects the containers of Argo\'s executor'
        yield fail(name, message, PATCH.format(config=CONFIG, namespace=site.argo_namespace))
    else:
        yield ok(name, "the executor has a security context" if is_restricted else "no patch is required")
    stored = "the report of each run is uploaded" if config.get("artifactRepository") else "none: reports stay in runs"
    yield ok("artifact repository", stored)


def _configuration(config_map: Mapping[str, Any]) -> dict[str, Any]:
    """Return the controller's configuration: keys of the ConfigMap, or the older single key ``config``."""
    data = config_map.get("data") or {}
    values = {key: _parse(text) for key, text in data.items() if key != "config"}
    nested = _parse(data.get("config") or "")
    return {**(nested if isinstance(nested, dict) else {}), **values}


def _parse(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None


def _is_admitted(config: Mapping[str, Any]) -> bool:
    executor = config.get("executor")
    context = executor.get("securityContext") if isinstance(executor, dict) else None
    if not isinstance(context, dict):
        return False
    dropped = (context.get("capabilities") or {}).get("drop") or []
    return context.get("allowPrivilegeEscalation") is False and "ALL" in dropped
