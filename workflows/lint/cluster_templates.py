"""Templates of a cluster that the linted documents refer to (``argotune lint --kube``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from workflows.argo.document import Document, Library
from workflows.lint.reading import read

Find = Callable[[str, str, str], "dict[str, Any] | None"]
"""Returns the object of a kind, namespace and name; None if the cluster has none."""
MAX_ROUNDS = 20
"""Depth of references between templates of the cluster."""


def fetch_templates(files: list[tuple[str, str]], find: Find) -> list[tuple[str, str]]:
    """Return the referenced templates that are in none of the files, as files with JSON."""
    fetched: dict[tuple[str, str, str], tuple[str, str]] = {}
    requested: set[tuple[str, str, str]] = set()
    for _ in range(MAX_ROUNDS):
        missing = _missing([*files, *fetched.values()]) - requested
        if not missing:
            break
        requested |= missing
        for kind, namespace, name in sorted(missing):
            value = find(kind, namespace, name)
            if value is not None:
                value = {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, **value}
                where = f"cluster:{kind}/{namespace}/{name}" if namespace else f"cluster:{kind}/{name}"
                fetched[kind, namespace, name] = (where, json.dumps(value))
    return list(fetched.values())


def _missing(files: list[tuple[str, str]]) -> set[tuple[str, str, str]]:
    """Return kind, namespace and name of each reference that is in none of the files."""
    library = Library()
    for file, text in files:
        for raw in read(file, text)[0]:
            if isinstance(raw.value, dict):
                library.documents.append(Document(raw.kind, raw.value, library))
    missing = set()
    for document in library.documents:
        for reference in [document.reference, *(call.reference for call in document.calls)]:
            name = str(reference.get("name", ""))
            if name and "{{" not in name and library.find(reference, document.namespace) is None:
                cluster = bool(reference.get("clusterScope"))
                kind = "ClusterWorkflowTemplate" if cluster else "WorkflowTemplate"
                missing.add((kind, "" if cluster else document.namespace, name))
    return missing
