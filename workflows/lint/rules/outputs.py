"""Outputs of templates, and paths of artifacts (Argo: ``validateOutputs``, ``CleanPath``)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_SOURCES = ("path", "jqFilter", "jsonPath", "parameter", "expression", "supplied")
_SOURCES_BY_TYPE = {
    "container": ("path",),
    "containerSet": ("path",),
    "script": ("path",),
    "resource": ("jqFilter", "jsonPath"),
    "dag": ("parameter", "expression"),
    "steps": ("parameter", "expression"),
}


def output_source(document: Document) -> Iterator[Violation]:
    """An output parameter does not have exactly one of `value` and `valueFrom`, or has a `valueFrom` that its template
    type does not allow: `path` is for containers, `jqFilter` and `jsonPath` for resources, `parameter` and
    `expression` for `dag` and `steps`.
    """
    for template in document.templates:
        for path, output in template.parts("outputs", "parameters"):
            source = section(output, "valueFrom")
            sources = [name for name in _SOURCES if source.get(name) not in (None, "")]
            allowed = _SOURCES_BY_TYPE.get(template.type, ())
            if "value" in output and "valueFrom" in output:
                yield Violation(path, "value cannot be combined with valueFrom", "remove one of them")
            elif "value" not in output and "valueFrom" not in output:
                fix = f"add valueFrom.{allowed[0]}" if allowed else "add value or valueFrom"
                yield Violation(path, f"output `{output.get('name', '')}` has no source", fix)
            elif "valueFrom" in output and len(sources) != 1:
                fields = " cannot be combined with ".join(sources) or "no source"
                message = f"`valueFrom`: {fields}"
                yield Violation(
                    join(path, "valueFrom"), message, f"set exactly one of {', '.join(allowed or _SOURCES)}"
                )
            elif sources and allowed and sources[0] not in allowed:
                message = f"`{sources[0]}` is not allowed in outputs of a {template.type}"
                yield Violation(join(path, "valueFrom"), message, f"use {' or '.join(allowed)}")


def artifact_path(document: Document) -> Iterator[Violation]:
    """An artifact of a leaf template has no `path`, an artifact of a `dag` or `steps` has one, or a path contains
    `..`.
    """
    for template in document.templates:
        for part in ("inputs", "outputs"):
            for path, artifact in template.parts(part, "artifacts"):
                file = str(artifact.get("path", ""))
                if template.is_leaf and not file:
                    fix = "add path, its location in the container"
                    yield Violation(path, f"artifact `{artifact.get('name', '')}` has no path", fix)
                elif file and template.type in ("dag", "steps"):
                    fix = "remove path; use from: '{{tasks.X.outputs.artifacts.Y}}' for an output"
                    yield Violation(join(path, "path"), f"an artifact of a {template.type} cannot have a path", fix)
                elif ".." in file.split("/"):
                    yield Violation(join(path, "path"), f"`{file}` contains `..`", "use a path without ..")
