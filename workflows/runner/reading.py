"""Reads a document into typed parts, or says by name and path what in it this machine can't do."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from workflows.argo.workflow import CronWorkflow, Workflow
from workflows.errors import Problem

KINDS: dict[str, type[Workflow]] = {
    "Workflow": Workflow,
    "WorkflowTemplate": Workflow,
    "ClusterWorkflowTemplate": Workflow,
    "CronWorkflow": CronWorkflow,
}


def read(document: dict[str, Any]) -> tuple[Workflow | None, list[Problem]]:
    """The document as typed parts, and everything in it that this runner refuses.

    When unknown fields are all that is wrong, the rest is still returned, so that it can be checked as well.
    """
    kind = KINDS.get(str(document.get("kind"))) if isinstance(document, dict) else None
    if kind is None:
        return None, [Problem(f"not a document of kind {', '.join(KINDS)}", path="kind")]
    try:
        return _flat(kind.model_validate(document)), []
    except ValidationError as refused:
        errors = refused.errors()
    problems = [_problem(error["type"], error["loc"], error["msg"]) for error in errors]
    if any(error["type"] != "extra_forbidden" for error in errors):
        return None, problems
    rest = copy.deepcopy(document)
    for error in errors:
        _remove(rest, error["loc"])
    try:
        return _flat(kind.model_validate(rest)), problems
    except ValidationError:
        return None, problems


def _flat(workflow: Workflow) -> Workflow:
    if isinstance(workflow, CronWorkflow):
        return Workflow.model_construct(
            kind=workflow.kind, metadata=workflow.metadata, spec=workflow.spec.workflow_spec
        )
    return workflow


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> Problem:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if kind == "extra_forbidden":
        what, fix = f"`{location[-1]}` can't be done on one machine", "remove it, or submit the document to a cluster"
    elif path.endswith("container.command"):
        what, fix = "a container needs a command here: the image isn't looked into", "write out the command"
    else:
        what, fix = message.removeprefix("Value error, "), ""
    return Problem(what, path=path, fix=fix)


def _remove(document: Any, location: tuple[int | str, ...]) -> None:
    for part in location[:-1]:
        document = document[part]
    document.pop(location[-1], None)
