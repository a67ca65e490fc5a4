"""Names: of objects, templates, tasks, parameters, artifacts (Argo: ``validateWorkflowFieldNames``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from workflows.argo.document import Document, Value, listed, section
from workflows.argo.tags import TAG
from workflows.field_path import join
from workflows.lint.rules.checked_values import checked_name
from workflows.lint.rules.rule import Violation

MAX_NAME_LENGTH = 63
MAX_CRON_NAME_LENGTH = 52
MAX_TEMPLATE_NAME_LENGTH = 128
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_OBJECT_START = re.compile(r"[a-z0-9]([-a-z0-9.]*[-a-z0-9])?")
_TEMPLATE = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9]*")
_PARAMETER = re.compile(r"[-a-zA-Z0-9_]+")
Item = tuple[str, Value]


def object_name(document: Document) -> Iterator[Violation]:
    """`metadata.name` is missing, is not a valid Kubernetes name, or is too long: over 63 characters, or over 52 for a
    CronWorkflow, because each run appends its time.
    """
    name, start = document.name, str(document.metadata.get("generateName", ""))
    max_length = MAX_CRON_NAME_LENGTH if document.kind == "CronWorkflow" else MAX_NAME_LENGTH
    path = "metadata.name"
    if not name and document.kind != "Workflow":
        yield Violation(path, f"metadata.name of a {document.kind} is required", "add metadata.name")
    elif not name and not start:
        yield Violation(
            path, "the Workflow has no name", "add metadata.name, or metadata.generateName for a new name on each run"
        )
    elif name and not _OBJECT.fullmatch(_without_tags(name)):
        yield Violation(path, f"invalid name `{name}`", "use lower-case letters, digits and dashes")
    elif not name and not _OBJECT_START.fullmatch(_without_tags(start)):
        yield Violation(
            "metadata.generateName",
            f"`{start}` is not a valid prefix of a name",
            "use lower-case letters, digits and dashes",
        )
    if len(name) > max_length:
        yield Violation(
            path, f"the name has {len(name)} characters (at most {max_length} for a {document.kind})", "shorten it"
        )


def name_syntax(document: Document) -> Iterator[Violation]:
    """The name of a template, task, step, or container of a container set is empty, longer than 128 characters, or
    contains characters other than letters, digits and dashes (no dots, no underscores).
    """
    for template in document.own_templates:
        yield from _template_name(template.name, template.path, "template")
        containers = listed(section(template.value, "containerSet"), "containers", f"{template.path}.containerSet")
        for path, value in containers:
            yield from _template_name(str(value.get("name", "")), path, "container")
    for template in document.templates:
        for task in template.tasks:
            kind = "step" if template.type == "steps" else "task"
            # Argo replaces tags in the names of steps.
            name = checked_name(document, template, task.name) if kind == "step" else task.name
            if name is not None:
                yield from _template_name(name, task.path, kind)


def parameter_name(document: Document) -> Iterator[Violation]:
    """The name of a parameter or artifact, or a `globalName`, contains characters other than letters, digits, `-` and
    `_`.
    """
    arguments = join(document.path, "arguments")
    for parameters in _parameter_lists(document):
        for path, value in parameters:
            for field in ("name", "globalName"):
                name = value.get(field, "" if field == "name" else None)
                # Argo replaces tags before it checks names, except those of the workflow's arguments and of inputs.
                as_written = field == "name" and (path.startswith(arguments) or ".inputs." in path)
                if name is not None and not _PARAMETER.fullmatch(name if as_written else _without_tags(name)):
                    fix = "use letters, digits, - and _"
                    yield Violation(join(path, field), f"invalid name `{name}` of a parameter or artifact", fix)


def duplicate_name(document: Document) -> Iterator[Violation]:
    """Two templates of a document, two tasks or steps of a template, or two parameters, artifacts, containers or
    volumes of one list have the same name.
    """
    lists: list[Sequence[Item]] = [[(template.path, template.value) for template in document.own_templates]]
    lists += _parameter_lists(document)
    lists += [listed(document.spec, "volumes", document.path)]
    for template in document.templates:
        lists.append([(task.path, task.value) for task in template.tasks])
        lists += [listed(template.value, kind, template.path) for kind in ("volumes", "sidecars", "initContainers")]
        lists.append(listed(section(template.value, "containerSet"), "containers", f"{template.path}.containerSet"))
    for items in lists:
        seen: dict[str, str] = {}
        for path, value in items:
            name = str(value.get("name", ""))
            if name and name in seen:
                yield Violation(join(path, "name"), f"duplicate name `{name}`, first at {seen[name]}", "rename it")
            seen.setdefault(name, path)


def _without_tags(name: str) -> str:
    return TAG.sub("x", name) if "{{" in name else name


def _template_name(name: str, path: str, kind: str) -> Iterator[Violation]:
    path = join(path, "name")
    if not name:
        yield Violation(path, f"the {kind} has no name", "add name")
    elif not _TEMPLATE.fullmatch(name):
        yield Violation(
            path,
            f"`{name}` is not a valid name of a {kind}",
            "use letters, digits and dashes, and no dash at the start",
        )
    if len(name) > MAX_TEMPLATE_NAME_LENGTH:
        yield Violation(
            path,
            f"the name has {len(name)} characters (at most {MAX_TEMPLATE_NAME_LENGTH})",
            "shorten it",
        )


def _parameter_lists(document: Document) -> list[list[Item]]:
    kinds = ("parameters", "artifacts")
    arguments = join(document.path, "arguments")
    lists = [listed(section(document.spec, "arguments"), kind, arguments) for kind in kinds]
    for template in document.templates:
        lists += [template.parts(part, kind) for part in ("inputs", "outputs") for kind in kinds]
    for call in document.calls:
        lists += [listed(call.arguments, kind, join(call.path, "arguments")) for kind in kinds]
    return lists
