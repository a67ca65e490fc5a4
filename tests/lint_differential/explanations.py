"""Reasons why ``argotune lint`` and ``argo lint --offline`` 4.1.2 differ, by rule, field and message.

A difference that no line explains fails the test: it is a false positive or a miss to correct, or a new line here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from workflows.lint import Finding

_HOOK = r"\.(hooks|onExit)\b"
_INPUT = r"\.inputs\."
_TASKS_FIELD = r"\.(memoize|retryStrategy|synchronization\.semaphores)\b"
_ARGUMENT = r"^spec\.(workflowSpec\.)?arguments\.(artifacts|.*valueFrom)"
ONLY_OURS = (
    ("syntax", "", "Go keeps one of two duplicate keys silently; argo lint skips a document that is not YAML"),
    ("kind", "", "argo lint ignores the version of the API, which the API server rejects"),
    ("nothing-to-lint", "", "argo lint accepts a file without Argo documents"),
    ("object-name", "", "the API server rejects the name"),
    ("unknown-volume", "", "Kubernetes rejects a pod that mounts an unknown volume; argo lint ignores volumes"),
    ("mount-path", "", "Kubernetes rejects a pod with two mounts of one path; argo lint checks only containers"),
    ("crd-value", "", "the API server rejects it with Argo's full CRDs"),
    ("duplicate-name", r"(sidecars|initContainers|volumes)\[", "Kubernetes rejects a pod with two of one name"),
    ("duplicate-name", _HOOK, "argo lint ignores the arguments of hooks"),
    ("reserved-container", "", "the container collides with Argo's own; argo lint checks only leaves"),
    ("when-syntax", "", "argo lint does not parse `when`; the task fails at runtime"),
    ("expression-syntax", "", "argo lint does not parse expressions in fields; they fail at runtime"),
    ("retry-expression", "", "argo lint does not evaluate retry expressions; they fail at runtime"),
    ("cron-expression", "", "argo lint does not evaluate stopStrategy; it fails at runtime"),
    ("hook-expression", r"\.tasks\[", "argo lint ignores the hooks of DAG tasks; this hook never runs"),
    ("depends-syntax", "", "argo lint does not parse `depends`; the run fails at runtime"),
    ("loop-list", "", "argo lint does not parse `withParam`; the task fails at runtime"),
    ("size", "", "the API server and the controller reject it"),
    (
        "missing-dependency",
        "",
        "argo lint checks dependencies of whole arguments only; others have no value at runtime",
    ),
    ("template-reference", _HOOK, "argo lint does not resolve the templates of hooks; they fail at runtime"),
    ("outside-reference", _HOOK, "argo lint does not resolve the templates of hooks; they fail at runtime"),
    ("missing-input", _HOOK, "argo lint ignores the arguments of hooks; they fail at runtime"),
    ("argument-value", _HOOK, "argo lint ignores the arguments of hooks; they fail at runtime"),
    ("artifact-argument", _HOOK, "argo lint ignores the arguments of hooks; they fail at runtime"),
    ("unresolved-tag", f"{_HOOK}|{_INPUT}", "argo lint ignores hooks, and inputs that arguments replace"),
    ("unresolved-tag", _TASKS_FIELD, "argo lint checks of steps and DAGs only tasks and outputs; the run fails"),
    ("unresolved-tag", _ARGUMENT, "argo lint checks an argument only where a pod has it; the run fails"),
    ("unclosed-tag", _ARGUMENT, "argo lint checks an argument only where a pod has it; the run fails"),
    ("unclosed-tag", f"{_HOOK}|{_INPUT}", "argo lint ignores hooks, and inputs that arguments replace"),
    ("unknown-output", _HOOK, "argo lint ignores the arguments of hooks; they fail at runtime"),
    ("failures-outside-exit", "", "argo lint knows {{workflow.failures}} everywhere once there is an exit handler"),
    ("parameter-name", r"globalName$", "Argo checks globalName only of outputs; elsewhere it has no effect"),
    ("enum", _INPUT, "argo lint checks enums only of arguments"),
    ("allowed-value", "", "the API server rejects it with Argo's full CRDs, or Kubernetes rejects the pod"),
    ("duration", "", "argo lint does not parse durations; they fail at runtime"),
    ("missing-field", "", "the API server rejects an object without a required field; Go reads an empty value"),
    ("enum", r"arguments", "the API server rejects an empty enum with Argo's full CRDs; Go omits it"),
    ("wrong-type", r"(value|default)$", "the API server rejects it with Argo's full CRDs; Go reads any JSON as text"),
    ("template-reference", r"\]$", "argo lint ignores `template` next to `inline`"),
    (
        "unresolved-tag",
        r"\.steps\[",
        "argo lint knows the items of a step in all later steps; they have no value there",
    ),
    ("no-tasks", r"\.steps$", "a template that runs nothing; argo lint checks only DAGs"),
)
"""Rule, pattern of the field, and why argo lint accepts what we refuse."""
_SKIPPED = re.compile(r"^\s*kind: \w*List\b|<<:", re.MULTILINE)
_SKIPS = "argo lint skips the items of a List and documents with merge keys; kubectl does not"
_DUPLICATE = "Go keeps one of two duplicate keys silently; argo lint --strict then skips the document"
_STEP_FIELD = re.compile(r"\.steps\[\d+\]\[\d+\]\..")
_LENIENT = "argo lint reads the fields of a step without strictness: unknown names are ignored, and case too"
ONLY_ARGO = (
    (r"failed to resolve \{\{[^}]*\"", "known miss: an unclosed tag in an input or argument, closed by Argo's JSON"),
    (
        r"name: '.*' is invalid|\]\.name is required",
        "known miss: a tag, or nothing, as the name of a container or output",
    ),
    (r"duplicate (Cluster)?WorkflowTemplate found", "known miss: two templates of one name in different documents"),
    (r"failed to resolve \{\{(tasks|steps)\.", "known miss: a tag of a task in a value that Argo inserts elsewhere"),
    (r"Cannot find end tag", "an unclosed tag without a reserved word: an error only where no later text closes it"),
    (r"parsing time", "argo reads metadata.creationTimestamp, which a user never sets"),
    (r"found nothing to lint", "argo lint skips lists, merge keys and unknown kinds, and then has nothing to lint"),
    (r"manifest must be a valid yaml", "a manifest with braces in it: what is applied depends on values"),
    (r"failed to resolve \{\{workflow\.parameters\.[^}]*\"", "an unclosed tag in an argument, closed by Argo's JSON"),
)
"""Pattern of the message of argo, and why we accept what it refuses."""


def explain(findings: Sequence[Finding], argo_message: str, text: str) -> str:
    """Return why a difference is right; empty when it is not known."""
    if not findings:
        return next((reason for pattern, reason in ONLY_ARGO if re.search(pattern, argo_message)), "")
    if _SKIPPED.search(text):
        return _SKIPS
    if any("is a duplicate, first on" in finding.problem.message for finding in findings):
        return _DUPLICATE
    if any(finding.rule == "unknown-field" and _STEP_FIELD.search(finding.problem.path) for finding in findings):
        return _LENIENT
    reasons = [_reason(finding) for finding in findings]
    return reasons[0] if all(reasons) else ""


def _reason(finding: Finding) -> str:
    return next(
        (why for rule, field, why in ONLY_OURS if rule == finding.rule and re.search(field, finding.problem.path)), ""
    )
