"""A document made ready to be created: parameters set as ``-p`` says, and a name that is known before it is sent."""

from __future__ import annotations

import copy
import difflib
import secrets
from collections.abc import Mapping
from typing import Any

from workflows.cluster.kubernetes_api import SUBMISSION
from workflows.cluster.workflows_api import PLURALS, Document, Workflows
from workflows.errors import InvalidInput, Problem
from workflows.spec.names import random_suffix

MAX_NAME_LENGTH = 63


def read(text: str, file: str) -> list[Document] | None:
    """The Argo objects that a text holds; None where it holds something else, such as Workspaces.

    Raises:
        InvalidInput: one of them can't be submitted, or Argo would refuse it: all errors of the linter.
    """
    from workflows.lint import GROUP, lint
    from workflows.lint.reading import read as parse

    raws, wrong = parse(file, text)
    versions = [str(raw.value.get("apiVersion", "")) if isinstance(raw.value, dict) else "" for raw in raws]
    if not any(version.startswith(GROUP) for version in versions):
        return None
    if not wrong:
        wrong = [problem for raw in raws for problem in _problems(raw.value, file)]
    wrong = wrong or [finding.problem for finding in lint([(file, text)]).errors]
    if wrong:
        raise InvalidInput(wrong)
    return [raw.value for raw in raws]


def with_parameters(document: Document, given: Mapping[str, str], file: str) -> Document:
    """A copy of the document with other values of its parameters.

    Raises:
        InvalidInput: one is not declared, or may not have that value.
    """
    result = copy.deepcopy(document)
    spec = _run_spec(result)
    declared = {item["name"]: item for item in (spec.get("arguments") or {}).get("parameters") or []}
    referred = "workflowTemplateRef" in spec
    problems = []
    for name, value in given.items():
        if name not in declared:
            if referred:
                # The template, which is not here, declares it.
                arguments = spec.setdefault("arguments", {})
                arguments.setdefault("parameters", []).append({"name": name, "value": value})
                continue
            near = difflib.get_close_matches(name, declared, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known: {', '.join(declared) or 'none'}"
            problems.append(Problem(f"-p {name}: the Workflow has no such parameter", file=file, fix=fix))
        elif declared[name].get("enum") and value not in declared[name]["enum"]:
            fix = f"one of {', '.join(declared[name]['enum'])}"
            problems.append(Problem(f"-p {name}={value}: not allowed", file=file, fix=fix))
        else:
            declared[name]["value"] = value
            declared[name].pop("valueFrom", None)
    if problems:
        raise InvalidInput(problems)
    return result


def named(document: Document) -> Document:
    """A copy with a name of its own and a mark: sent twice, it is created once, and known again."""
    result = copy.deepcopy(document)
    metadata = result["metadata"]
    prefix = metadata.pop("generateName", "")
    if not metadata.get("name"):
        metadata["name"] = prefix[: MAX_NAME_LENGTH - 5] + random_suffix()
    metadata["annotations"] = {**(metadata.get("annotations") or {}), SUBMISSION: secrets.token_hex(8)}
    return result


def create(api: Workflows, document: Document, *, dry_run: bool = False) -> Document:
    """Create the document in the namespace that ``api`` means, under a name of its own; gives what is there now.

    Raises:
        ApiFailure: the cluster can't be request, or refuses.
    """
    ready = named(document)
    if document["kind"] != "ClusterWorkflowTemplate":
        ready["metadata"]["namespace"] = api.namespace
    # An answer may leave out what the request says.
    return {"kind": ready["kind"], **api.create(ready, dry_run=dry_run)}


def _problems(document: Any, file: str) -> list[Problem]:
    """What keeps an object from being created, whatever the cluster would say."""
    content = document if isinstance(document, dict) else {}
    kind, metadata = content.get("kind"), content.get("metadata")
    if kind not in PLURALS:
        fix = f"known: {', '.join(PLURALS)}"
        return [Problem(f"{kind or 'an object without kind'} can't be submitted", "kind", file, fix=fix)]
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        fix = "metadata: {generateName: tune-}"
        return [Problem("has neither name nor generateName", "metadata", file, fix=fix)]
    return []


def _run_spec(document: Document) -> dict[str, Any]:
    """The spec of the runs that come of a document."""
    spec: dict[str, Any] = document["spec"]
    return spec["workflowSpec"] if document.get("kind") == "CronWorkflow" and "workflowSpec" in spec else spec
