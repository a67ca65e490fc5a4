"""Enumerated values, durations and deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steps.runtime.validation_messages import format_value
from workflows.argo.document import Document, Value, listed, section
from workflows.argo.duration import parse_duration
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_POD_GC = ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess")
_ARTIFACT_GC = ("OnWorkflowCompletion", "OnWorkflowDeletion", "Never")
_RETRY = ("Always", "OnFailure", "OnError", "OnTransientError")
_ACTIONS = ("get", "create", "apply", "delete", "replace", "patch")
Field = tuple[str, Any]


def allowed_value(document: Document) -> Iterator[Violation]:
    """A field with enumerated values has another value: `concurrencyPolicy`, `podGC.strategy`,
    `volumeClaimGC.strategy`, `artifactGC.strategy`, `retryPolicy`, `resource.action` and `mergeStrategy`, a gauge's
    `operation`, `imagePullPolicy`.
    """
    for (path, value), allowed in _enumerated(document):
        if isinstance(value, str) and value and "{{" not in value and value not in allowed:
            yield Violation(path, f"invalid value `{value}`", unknown(value, allowed))


def duration(document: Document) -> Iterator[Violation]:
    """A duration is not in Go's format (`90s`, `1h30m`), or a `timeout` is a bare number, which Argo rejects."""
    for path, value in _durations(document):
        if not isinstance(value, str) or not value or "{{" in value:
            continue
        bare = value.lstrip("+-").isdecimal()
        if bare and path.rpartition(".")[2] in ("timeout", "pendingTimeout"):
            yield Violation(path, f"`{value}` has no unit", f"use {value}s for seconds")
            continue
        try:
            parse_duration(value)
        except ValueError as error:
            yield Violation(path, str(error), "use a duration such as 90s, 10m or 1h30m")


def deadline(document: Document) -> Iterator[Violation]:
    """`activeDeadlineSeconds` is neither an integer from 0 nor a tag, or `startingDeadlineSeconds` is negative."""
    deadlines = [_field(document.spec, "activeDeadlineSeconds", document.path)]
    deadlines += [_field(template.value, "activeDeadlineSeconds", template.path) for template in document.templates]
    for path, value in deadlines:
        if value is not None and "{{" not in str(value) and not _is_whole_number(value):
            message = f"{format_value(value)} is not a number of seconds"
            yield Violation(path, message, "set the seconds, such as 3600")
    if document.kind == "CronWorkflow":
        path, value = _field(section(document.value, "spec"), "startingDeadlineSeconds", "spec")
        if isinstance(value, int) and value < 0:
            yield Violation(path, f"{value} is negative", "set the maximum delay of a scheduled run in seconds")


def _is_whole_number(value: Any) -> bool:
    return value >= 0 and value.is_integer() if isinstance(value, float) else str(value).isdecimal()


def _enumerated(document: Document) -> Iterator[tuple[Field, tuple[str, ...]]]:
    spec, path = document.spec, document.path
    if document.kind == "CronWorkflow":
        cron = section(document.value, "spec")
        yield _field(cron, "concurrencyPolicy", "spec"), ("Allow", "Forbid", "Replace")
    yield _nested(spec, "podGC", "strategy", path), _POD_GC
    yield _nested(spec, "volumeClaimGC", "strategy", path), ("OnWorkflowCompletion", "OnWorkflowSuccess")
    yield _nested(spec, "artifactGC", "strategy", path), _ARTIFACT_GC
    selector = section(section(spec, "podGC"), "labelSelector")
    for item_path, value in listed(selector, "matchExpressions", join(path, "podGC.labelSelector")):
        yield _field(value, "operator", item_path), ("In", "NotIn", "Exists", "DoesNotExist")
    for template_path, value in _templates(document):
        yield _nested(value, "retryStrategy", "retryPolicy", template_path), _RETRY
        yield _nested(value, "resource", "action", template_path), _ACTIONS
        yield _nested(value, "resource", "mergeStrategy", template_path), ("strategic", "merge", "json")
        for item_path, metric in listed(section(value, "metrics"), "prometheus", join(template_path, "metrics")):
            yield _nested(metric, "gauge", "operation", item_path), ("Set", "Add", "Sub")
        for item_path, artifact in listed(section(value, "outputs"), "artifacts", f"{template_path}.outputs"):
            yield _nested(artifact, "artifactGC", "strategy", item_path), _ARTIFACT_GC
    for template in document.templates:
        for item_path, container in template.pods:
            yield _field(container, "imagePullPolicy", item_path), ("Always", "IfNotPresent", "Never")


def _durations(document: Document) -> Iterator[Field]:
    yield _nested(document.spec, "podGC", "deleteDelayDuration", document.path)
    for template_path, value in _templates(document):
        yield _field(value, "timeout", template_path)
        yield _field(value, "pendingTimeout", template_path)
        for name in ("duration", "maxDuration", "cap"):
            yield _nested(section(value, "retryStrategy"), "backoff", name, f"{template_path}.retryStrategy")
        yield _nested(value, "suspend", "duration", template_path)
        yield _nested(value, "memoize", "maxAge", template_path)
        yield _nested(section(value, "containerSet"), "retryStrategy", "duration", f"{template_path}.containerSet")


def _templates(document: Document) -> list[tuple[str, Value]]:
    defaults = (join(document.path, "templateDefaults"), document.defaults)
    return [defaults, *((template.path, template.value) for template in document.templates)]


def _field(value: Value, name: str, path: str) -> Field:
    return join(path, name), value.get(name)


def _nested(value: Value, outer: str, inner: str, path: str) -> Field:
    return _field(section(value, outer), inner, join(path, outer))
