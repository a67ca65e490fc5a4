"""Preparation of documents for submission: parameters, and a name chosen by the client."""

from __future__ import annotations

import copy
import difflib
import secrets
from collections.abc import Mapping
from typing import Any

from workflows.cluster.kubernetes_api import SUBMISSION
from workflows.cluster.workflows_api import PLURALS, Document, Workflows
from workflows.errors import InvalidInput, Problem, use_one_of
from workflows.spec.names import random_suffix

MAX_NAME_LENGTH = 63


def read_documents(text: str, file: str) -> list[Document] | None:
    """Return the Argo objects of a text; None if it contains something else, such as Workspaces.

    Raises:
        InvalidInput: one cannot be submitted, or has lint errors.
    """
    from workflows.lint import GROUP, lint
    from workflows.lint.reading import read as parse

    raws, problems = parse(file, text)
    versions = [str(raw.value.get("apiVersion", "")) if isinstance(raw.value, dict) else "" for raw in raws]
    if not any(version.startswith(GROUP) for version in versions):
        return None
    if not problems:
        problems = [problem for raw in raws for problem in _problems(raw.value, file)]
    problems = problems or [finding.problem for finding in lint([(file, text)]).errors]
    if problems:
        raise InvalidInput(problems)
    return [raw.value for raw in raws]


def with_parameters(document: Document, values: Mapping[str, str], file: str) -> Document:
    """Return a copy of the document with other parameter values.

    Raises:
        InvalidInput: a parameter is not declared, or does not allow the value.
    """
    result = copy.deepcopy(document)
    spec = _run_spec(result)
    declared = {item["name"]: item for item in (spec.get("arguments") or {}).get("parameters") or []}
    is_reference = "workflowTemplateRef" in spec
    problems = []
    for name, value in values.items():
        if name not in declared:
            if is_reference:
                # The referenced template on the cluster declares it.
                arguments = spec.setdefault("arguments", {})
                arguments.setdefault("parameters", []).append({"name": name, "value": value})
                continue
            similar = difflib.get_close_matches(name, declared, n=1)
            fix = f"did you mean {similar[0]}?" if similar else use_one_of(declared, "remove it")
            problems.append(Problem(f'-p: unknown parameter "{name}"', file=file, fix=fix))
        elif declared[name].get("enum") and value not in declared[name]["enum"]:
            fix = f"use one of {', '.join(declared[name]['enum'])}"
            problems.append(Problem(f"-p {name}={value}: not allowed", file=file, fix=fix))
        else:
            declared[name]["value"] = value
            declared[name].pop("valueFrom", None)
    if problems:
        raise InvalidInput(problems)
    return result


def with_name(document: Document) -> Document:
    """Return a copy with a unique name and a submission id, so that a repeated request creates it once."""
    result = copy.deepcopy(document)
    metadata = result["metadata"]
    prefix = metadata.pop("generateName", "")
    if not metadata.get("name"):
        metadata["name"] = prefix[: MAX_NAME_LENGTH - 5] + random_suffix()
    metadata["annotations"] = {**(metadata.get("annotations") or {}), SUBMISSION: secrets.token_hex(8)}
    return result


def create(api: Workflows, document: Document, *, dry_run: bool = False) -> Document:
    """Create the document in the namespace of ``api`` under a unique name; return the created object.

    Raises:
        ApiFailure: the request failed.
    """
    ready = with_name(document)
    if document["kind"] != "ClusterWorkflowTemplate":
        ready["metadata"]["namespace"] = api.namespace
    # A response can omit the kind.
    return {"kind": ready["kind"], **api.create(ready, dry_run=dry_run)}


def _problems(document: Any, file: str) -> list[Problem]:
    """Return the errors that prevent a submission to any cluster."""
    content = document if isinstance(document, dict) else {}
    kind, metadata = content.get("kind"), content.get("metadata")
    if kind not in PLURALS:
        fix = f"use one of {', '.join(PLURALS)}"
        return [Problem(f"{kind or 'an object without kind'} cannot be submitted", "kind", file, fix=fix)]
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        fix = "add metadata: {generateName: tune-}"
        return [Problem("name or generateName is required", "metadata", file, fix=fix)]
    return []


def _run_spec(document: Document) -> dict[str, Any]:
    """Return the Workflow spec of a document."""
    spec: dict[str, Any] = document["spec"]
    return spec["workflowSpec"] if document.get("kind") == "CronWorkflow" and "workflowSpec" in spec else spec
