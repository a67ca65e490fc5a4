"""Why ``argotune lint`` and ``argo lint --offline`` 4.1.2 differ, by rule and by message.

A difference that no line explains fails the test: it is a false positive or a miss to correct, or a new line here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from workflows.lint import Finding

ONLY_OURS = {
    "syntax": "kubectl and Argo keep one of two duplicate keys silently, or argo lint skips a file that is not YAML",
    "kind": "argo lint ignores the version of the API, which the API server rejects",
    "nothing-to-lint": "argo lint accepts a file without Argo documents",
    "object-name": "the API server rejects the name",
    "unknown-volume": "Kubernetes rejects a pod that mounts an unknown volume; argo lint does not look at volumes",
    "mount-path": "Kubernetes rejects a pod with two mounts of one path",
    "crd-value": "the API server rejects it with Argo's full CRDs",
    "duplicate-name": "Kubernetes rejects two containers or volumes of one name",
    "reserved-container": "the container collides with Argo's own at runtime",
    "when-syntax": "argo lint does not parse `when`; the task fails at runtime",
    "expression-syntax": "argo lint does not parse expressions in fields; they fail at runtime",
    "retry-expression": "argo lint does not evaluate retry expressions; they fail at runtime",
    "cron-expression": "argo lint does not evaluate stopStrategy; it fails at runtime",
    "hook-expression": "argo lint does not check the hooks of DAG tasks; the hook never runs",
    "depends-syntax": "argo lint does not parse `depends`; the run fails at runtime",
    "loop-list": "argo lint does not parse `withParam`; the task fails at runtime",
    "size": "the API server and the controller reject it",
    "missing-dependency": "argo lint checks dependencies only of whole arguments; the tag has no value at runtime",
    "template-reference": "argo lint does not resolve the templates of hooks; they fail at runtime",
    "outside-reference": "argo lint does not resolve the templates of hooks",
    "missing-input": "argo lint does not check the arguments of hooks; they fail at runtime",
    "unresolved-tag": "argo lint does not check inputs whose value is replaced, and hooks; they fail at runtime",
    "unknown-output": "argo lint does not check tags of hooks; they fail at runtime",
    "unclosed-tag": "argo lint does not check the sources of input artifacts, or reads on to another tag",
    "failures-outside-exit": "argo lint knows {{workflow.failures}} in every template once there is an exit handler",
    "parameter-name": "Argo checks globalName only of outputs",
    "argument-value": "argo lint does not check the arguments of hooks",
    "artifact-argument": "argo lint does not check the arguments of hooks",
    "enum": "argo lint checks enums only of arguments",
    "allowed-value": "the API server rejects it with Argo's full CRDs, or the field is not checked before it is used",
    "duration": "argo lint does not parse durations; they fail at runtime",
    "deadline": "the deadline of a template that is not checked",
    "missing-field": "the API server rejects an object without a required field; Go reads an empty value",
    "no-tasks": "the API server rejects a DAG without tasks; steps without groups run nothing",
    "entrypoint": "argo lint skips items of a List and documents with merge keys",
    "library-tag": "argo lint checks a library template once, with the values of the first caller",
    "global-output-order": "argo lint checks each template once, in the order of the first caller",
    "template-type": "argo lint skips items of a List and documents with merge keys",
    "name-syntax": "argo lint skips items of a List and documents with merge keys",
    "templates-beside-reference": "argo lint skips items of a List and documents with merge keys",
    "unknown-field": "argo lint skips items of a List and documents with merge keys",
    "wrong-type": "argo lint skips items of a List and documents with merge keys, and plugins",
    "quantity": "Kubernetes' own quantities are stricter than argo lint",
    "timezone": "argo lint reads the time zones of its machine",
    "metric": "the API server rejects it with Argo's full CRDs",
    "resource-manifest": "argo lint does not check manifests with tags",
    "output-source": "argo lint does not check outputs of a template that is never resolved",
    "artifact-path": "argo lint does not check the paths of templates that have tags as type",
    "on-exit": "argo lint skips items of a List and documents with merge keys",
    "image-missing": "argo lint skips items of a List and documents with merge keys",
}
"""Rules of which errors go beyond argo lint."""

ONLY_ARGO = (
    (r"Cannot find end tag", "an unclosed tag without a reserved word: an error only where no later text closes it"),
    (r"parsing time", "argo reads metadata.creationTimestamp, which a user never sets"),
    (r"found nothing to lint", "argo lint --strict skips lists, merge keys and kinds that it does not know"),
    (r"manifest must be a valid yaml", "a manifest with braces in it: the manifest that is applied depends on values"),
    (r"failed to resolve \{\{workflow\.parameters\.[^}]*\"", "an unclosed tag in an argument, closed by Argo's JSON"),
)
"""Patterns of messages of argo whose documents we accept."""


def explain(findings: Sequence[Finding], argo_message: str) -> str:
    """Return why a difference is right; empty when it is not known."""
    if argo_message or not findings:
        return next((reason for pattern, reason in ONLY_ARGO if re.search(pattern, argo_message)), "")
    reasons = [ONLY_OURS.get(finding.rule, "") for finding in findings]
    return reasons[0] if all(reasons) else ""
