"""Pods with GPUs and pods on nodes that can be taken away: retries, deadlines, limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from workflows.argo.document import Document, Template, Value, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_GPU = re.compile(r"(^|[./-])(gpu|mig-)", re.IGNORECASE)
_PREEMPTIBLE = re.compile(r"\b(spot|preemptible|preemptable)\b", re.IGNORECASE)
_PLACEMENT = ("nodeSelector", "tolerations", "affinity")


def gpu_without_retry(document: Document) -> Iterator[Violation]:
    """A template that requests GPUs has no `retryStrategy`, so one lost node fails the run."""
    for template in document.templates:
        gpus = _gpus(template)
        if gpus and not template.effective("retryStrategy"):
            fix = "add retryStrategy: {limit: '3', retryPolicy: OnError}, and resume from checkpoints"
            yield Violation(template.path, f"{template.label} requests {gpus[0]} and has no retryStrategy", fix)


def preemptible_without_retry(document: Document) -> Iterator[Violation]:
    """A template runs on spot or preemptible nodes and has no `retryStrategy`, so a preemption fails the run."""
    shared = _is_preemptible(document.spec)
    for template in document.templates:
        placed = _is_preemptible(template.value) or (shared and not any(name in template.value for name in _PLACEMENT))
        is_retried = template.effective("retryStrategy") or _is_failure_accepted(document, template)
        if template.pods and placed and not is_retried and not _gpus(template):
            fix = "add retryStrategy: {limit: '3', retryPolicy: OnError}"
            yield Violation(template.path, f"{template.label} runs on preemptible nodes and has no retryStrategy", fix)


def _is_failure_accepted(document: Document, template: Template) -> bool:
    """Return True if every call of a template continues after its failure and its error."""
    accepted = [section(call.value, "continueOn") for call in document.calls if call.called is template]
    return bool(accepted) and all(on.get("failed") and on.get("error") for on in accepted)


def gpu_without_deadline(document: Document) -> Iterator[Violation]:
    """A template that requests GPUs has no `activeDeadlineSeconds` or `timeout`, and neither has the workflow: a
    process that hangs keeps the GPUs.
    """
    if document.spec.get("activeDeadlineSeconds") is not None:
        return
    for template in document.templates:
        gpus = _gpus(template)
        if gpus and template.effective("activeDeadlineSeconds") is None and not template.effective("timeout"):
            fix = "add activeDeadlineSeconds to the template or to spec"
            yield Violation(template.path, f"{template.label} requests {gpus[0]} and has no deadline", fix)


def gpu_limits(document: Document) -> Iterator[Violation]:
    """A container requests GPUs without a limit, or with another limit: Kubernetes rejects the pod."""
    for template in document.templates:
        for path, pod in template.pods:
            resources = section(pod, "resources")
            limits, requests = section(resources, "limits"), section(resources, "requests")
            for name in filter(_GPU.search, requests):
                if str(limits.get(name)) != str(requests[name]) and "{{" not in f"{limits.get(name)}{requests[name]}":
                    where = join(join(path, "resources.requests"), name)
                    yield Violation(where, f"{name} has no equal limit", f"set limits.{name} to {requests[name]}")


def _gpus(template: Template) -> list[str]:
    names: list[str] = []
    for _, pod in template.pods:
        resources = section(pod, "resources")
        names += filter(_GPU.search, [*section(resources, "limits"), *section(resources, "requests")])
    return names


def _is_preemptible(value: Value) -> bool:
    return any(name in value and _PREEMPTIBLE.search(json.dumps(value[name])) for name in _PLACEMENT)
