"""Values out of a closed set, durations, deadlines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from workflows.argo.document import Document, Value, listed, section
from workflows.argo.duration import seconds
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import short, unknown

_POD_GC = ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "OnWorkflowSuccess")
_ARTIFACT_GC = ("OnWorkflowCompletion", "OnWorkflowDeletion", "Never")
_RETRY = ("Always", "OnFailure", "OnError", "OnTransientError")
_ACTIONS = ("get", "create", "apply", "delete", "replace", "patch")
Place = tuple[str, Any]


def allowed_value(document: Document) -> Iterator[Violation]:
    """A field with a closed set of values has another: `concurrencyPolicy`, `podGC.strategy`,
    `volumeClaimGC.strategy`, `artifactGC.strategy`, `retryPolicy`, `resource.action` and `mergeStrategy`, a
    gauge's `operation`, `imagePullPolicy`.
    """
    for (path, value), allowed in _closed(document):
        if isinstance(value, str) and value and "{{" not in value and value not in allowed:
            yield Violation(path, f"`{value}` is not a value of this field", unknown(value, allowed))


def duration(document: Document) -> Iterator[Violation]:
    """A duration is none of Go's (`90s`, `1h30m`), or a `timeout` is a bare number, which Argo refuses."""
    for path, value in _durations(document):
        if not isinstance(value, str) or not value or "{{" in value:
            continue
        bare = value.lstrip("+-").isdecimal()
        if bare and path.rpartition(".")[2] in ("timeout", "pendingTimeout"):
            yield Violation(path, f"`{value}` has no unit", f"write {value}s for seconds")
            continue
        try:
            seconds(value)
        except ValueError as error:
            yield Violation(path, str(error), "write 90s, 10m or 1h30m")


def deadline(document: Document) -> Iterator[Violation]:
    """`activeDeadlineSeconds` is neither a whole number above zero nor a tag, or `startingDeadlineSeconds` is below
    zero.
    """
    places = [_field(document.spec, "activeDeadlineSeconds", document.path)]
    places += [_field(template.value, "activeDeadlineSeconds", template.path) for template in document.templates]
    for path, value in places:
        if value is not None and "{{" not in str(value) and not (str(value).isdecimal() and int(value) > 0):
            yield Violation(
                path, f"{short(value)} is not a whole number above zero", "write the seconds, such as 3600"
            )
    if document.kind == "CronWorkflow":
        path, value = _field(section(document.value, "spec"), "startingDeadlineSeconds", "spec")
        if isinstance(value, int) and value < 0:
            yield Violation(path, f"{value} is below zero", "write how many seconds late a run may still start")


def _closed(document: Document) -> Iterator[tuple[Place, tuple[str, ...]]]:
    spec, path = document.spec, document.path
    if document.kind == "CronWorkflow":
        cron = section(document.value, "spec")
        yield _field(cron, "concurrencyPolicy", "spec"), ("Allow", "Forbid", "Replace")
    yield _nested(spec, "podGC", "strategy", path), _POD_GC
    yield _nested(spec, "volumeClaimGC", "strategy", path), ("OnWorkflowCompletion", "OnWorkflowSuccess")
    yield _nested(spec, "artifactGC", "strategy", path), _ARTIFACT_GC
    selector = section(section(spec, "podGC"), "labelSelector")
    for place, value in listed(selector, "matchExpressions", join(path, "podGC.labelSelector")):
        yield _field(value, "operator", place), ("In", "NotIn", "Exists", "DoesNotExist")
    for place, value in _templates(document):
        yield _nested(value, "retryStrategy", "retryPolicy", place), _RETRY
        yield _nested(value, "resource", "action", place), _ACTIONS
        yield _nested(value, "resource", "mergeStrategy", place), ("strategic", "merge", "json")
        for where, metric in listed(section(value, "metrics"), "prometheus", join(place, "metrics")):
            yield _nested(metric, "gauge", "operation", where), ("Set", "Add", "Sub")
        for where, artifact in listed(section(value, "outputs"), "artifacts", f"{place}.outputs"):
            yield _nested(artifact, "artifactGC", "strategy", where), _ARTIFACT_GC
    for template in document.templates:
        for where, container in template.pods:
            yield _field(container, "imagePullPolicy", where), ("Always", "IfNotPresent", "Never")


def _durations(document: Document) -> Iterator[Place]:
    yield _nested(document.spec, "podGC", "deleteDelayDuration", document.path)
    for place, value in _templates(document):
        yield _field(value, "timeout", place)
        yield _field(value, "pendingTimeout", place)
        for name in ("duration", "maxDuration", "cap"):
            yield _nested(section(value, "retryStrategy"), "backoff", name, f"{place}.retryStrategy")
        yield _nested(value, "suspend", "duration", place)
        yield _nested(value, "memoize", "maxAge", place)
        yield _nested(section(value, "containerSet"), "retryStrategy", "duration", f"{place}.containerSet")


def _templates(document: Document) -> list[tuple[str, Value]]:
    defaults = (join(document.path, "templateDefaults"), document.defaults)
    return [defaults, *((template.path, template.value) for template in document.templates)]


def _field(value: Value, name: str, path: str) -> Place:
    return join(path, name), value.get(name)


def _nested(value: Value, outer: str, inner: str, path: str) -> Place:
    return _field(section(value, outer), inner, join(path, outer))
