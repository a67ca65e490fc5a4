"""The result of a check, and the kinds of objects that checks read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from steps.kubernetes.client import Kind, KubernetesClient
from steps.kubernetes.errors import KindNotInstalled
from steps.runtime.errors import StepError
from workflows.plan.model import Plan

State = Literal["ok", "fail", "not checked"]

DEFINITIONS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", cluster_wide=True)
NAMESPACES = Kind("v1", "namespaces", cluster_wide=True)
ACCOUNTS = Kind("v1", "serviceaccounts")
CLAIMS = Kind("v1", "persistentvolumeclaims")
QUOTAS = Kind("v1", "resourcequotas")
STORAGE_CLASSES = Kind("storage.k8s.io/v1", "storageclasses", cluster_wide=True)
DEPLOYMENTS = Kind("apps/v1", "deployments")
ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "endpointslices")
RESULTS = Kind("argoproj.io/v1alpha1", "workflowtaskresults")


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    check: str
    state: State
    message: str
    fix: str = ""


@dataclass(frozen=True)
class Site:
    """Input of the checks: the cluster, the plan of the site profile, and Argo's namespace."""

    cluster: KubernetesClient
    plan: Plan
    argo_namespace: str

    @property
    def namespace(self) -> str:
        """Namespace of the runs."""
        return self.cluster.namespace


Check = Callable[[Site], Iterator[Finding]]


def ok(check: str, message: str) -> Finding:
    """Return a passed check."""
    return Finding(check, "ok", message)


def fail(check: str, message: str, fix: str) -> Finding:
    """Return a failed check."""
    return Finding(check, "fail", message, fix)


def not_checked(check: str, message: str, fix: str = "") -> Finding:
    """Return a check that could not run."""
    return Finding(check, "not checked", message, fix)


def run_checks(site: Site, checks: dict[str, Check]) -> Iterator[Finding]:
    """Yield the findings of each check; one that the cluster does not permit is not checked."""
    for name, check in checks.items():
        try:
            yield from check(site)
        except KindNotInstalled as error:
            yield fail(name, error.message, error.fix)
        except StepError as error:
            yield not_checked(name, error.message, error.fix)
