"""Checks of argotune's installation: namespace, accounts and their rights, locks, volumes, quota."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from steps.kubernetes.access_reviews import is_allowed
from steps.kubernetes.client import CONFIG_MAPS, WORKFLOWS
from workflows.doctor.finding import (
    ACCOUNTS,
    CLAIMS,
    NAMESPACES,
    QUOTAS,
    RESULTS,
    STORAGE_CLASSES,
    Finding,
    Site,
    fail,
    ok,
)

INSTALL = "kubectl apply -k argo/install (argo/README.md)"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def check_namespace(site: Site) -> Iterator[Finding]:
    """Check that the namespace of the runs exists."""
    if site.cluster.get(NAMESPACES, site.namespace) is None:
        yield fail("namespace", f"{site.namespace} not found", f"{INSTALL}, or select another with --namespace")
    else:
        yield ok("namespace", site.namespace)


def check_own_rights(site: Site) -> Iterator[Finding]:
    """Check that the user of the kubeconfig can create and watch runs."""
    denied = []
    for verb in ("create", "get", "list", "watch"):
        if not is_allowed(site.cluster, verb, WORKFLOWS, site.namespace):
            denied.append(verb)
    if denied:
        fix = "bind the Role argotune-submitter to the user (argo/install/roles.yaml)"
        yield fail("own rights", f"the user of the kubeconfig cannot {', '.join(denied)} workflows", fix)
    else:
        yield ok("own rights", "the user of the kubeconfig can submit and watch runs")


def check_accounts(site: Site) -> Iterator[Finding]:
    """Check that the accounts of the site profile exist."""
    names = list(dict.fromkeys([site.plan.service_account, *site.plan.service_accounts.values()]))
    missing = [name for name in names if site.cluster.get(ACCOUNTS, name) is None]
    if missing:
        yield fail("accounts", f"not found in namespace {site.namespace}: {', '.join(missing)}", INSTALL)
    else:
        yield ok("accounts", ", ".join(names))


def check_executor_rights(site: Site) -> Iterator[Finding]:
    """Check that the pods of each account can report outputs, without which every step fails."""
    names = list(dict.fromkeys([site.plan.service_account, *site.plan.service_accounts.values()]))
    denied = []
    for name in names:
        user = f"system:serviceaccount:{site.namespace}:{name}"
        if not is_allowed(site.cluster, "create", RESULTS, site.namespace, user):
            denied.append(name)
    if denied:
        fix = "bind the Role argotune-executor to them (argo/install/roles.yaml)"
        yield fail("account rights", f"cannot create workflowtaskresults: {', '.join(denied)}", fix)
    else:
        yield ok("account rights", f"{len(names)} accounts can report results")


def check_semaphore(site: Site) -> Iterator[Finding]:
    """Check that the lock of GPU pods exists: without it they wait forever."""
    lock = site.plan.semaphore
    if not (lock.config_map and lock.key):
        yield ok("semaphore", "no limit of concurrent GPU pods")
        return
    config_map = site.cluster.get(CONFIG_MAPS, lock.config_map)
    limit = ((config_map or {}).get("data") or {}).get(lock.key)
    if limit is None:
        problem = f"ConfigMap {lock.config_map} {f'has no key {lock.key}' if config_map else 'not found'}"
        yield fail("semaphore", problem, f"{INSTALL}, or set semaphore in the site profile")
    else:
        yield ok("semaphore", f"{limit} concurrent GPU pods ({lock.config_map}, key {lock.key})")


def check_storage(site: Site) -> Iterator[Finding]:
    """Check the class of the work volumes, and the volume of base models."""
    chosen = site.plan.storage.storage_class
    classes = site.cluster.list(STORAGE_CLASSES)
    names = [item["metadata"]["name"] for item in classes]
    defaults = [
        item["metadata"]["name"]
        for item in classes
        if (item["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    if chosen and chosen not in names:
        yield fail("storage class", f"{chosen} not found", f"set storage.storageClass to one of: {', '.join(names)}")
    elif not chosen and not defaults:
        fix = f"mark one as default, or set storage.storageClass in the site profile: {', '.join(names) or 'none'}"
        yield fail("storage class", "no default class", fix)
    else:
        yield ok("storage class", chosen or f"{defaults[0]} (default)")


def check_models_claim(site: Site) -> Iterator[Finding]:
    """Check the volume of base models; one whose class waits for the first pod is Pending."""
    name = site.plan.storage.models_claim
    claim = site.cluster.get(CLAIMS, name)
    phase = ((claim or {}).get("status") or {}).get("phase", "Pending")
    if claim is None:
        yield fail("models claim", f"{name} not found", f"{INSTALL}, or set storage.modelsClaim in the site profile")
    elif phase == "Lost":
        yield fail("models claim", f"{name} has lost its volume", "delete it and create it again")
    else:
        yield ok("models claim", f"{name} ({phase}, {', '.join(claim['spec'].get('accessModes') or [])})")


def check_quota(site: Site) -> Iterator[Finding]:
    """Check that quotas have room for a GPU, a pod and a volume."""
    gpu = f"requests.{site.plan.resource.gpu_resource}"
    quotas = site.cluster.list(QUOTAS)
    full = []
    for quota in quotas:
        used = (quota.get("status") or {}).get("used") or {}
        for resource, hard in (quota["spec"].get("hard") or {}).items():
            if resource in (gpu, "pods", "persistentvolumeclaims") and _free(hard, used.get(resource, "0")) < 1:
                full.append(f"{quota['metadata']['name']}: {used.get(resource, '0')} of {hard} {resource}")
    if full:
        fix = "wait for runs, delete failed ones (kubectl delete workflow), or raise it (argo/install/quota.yaml)"
        yield fail("quota", "; ".join(full), fix)
    else:
        yield ok("quota", f"{len(quotas)} quotas have room" if quotas else "none")


def _free(hard: Any, used: Any) -> float:
    return float(parse_quantity(hard) - parse_quantity(used))
