"""Outputs of templates, and paths of artifacts (Argo: ``validateOutputs``, ``CleanPath``)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_SOURCES = ("path", "jqFilter", "jsonPath", "parameter", "expression", "supplied")
_OF_TYPE = {
    "container": ("path",),
    "containerSet": ("path",),
    "script": ("path",),
    "resource": ("jqFilter", "jsonPath"),
    "dag": ("parameter", "expression"),
    "steps": ("parameter", "expression"),
}


def output_source(document: Document) -> Iterator[Violation]:
    """An output parameter has not exactly one of `value` and `valueFrom`, or a `valueFrom` that its type of
    template can't have: `path` is for containers, `jqFilter` and `jsonPath` for resources, `parameter` and
    `expression` for `dag` and `steps`.
    """
    for template in document.templates:
        for path, output in template.parts("outputs", "parameters"):
            source = section(output, "valueFrom")
            has = [name for name in _SOURCES if source.get(name) not in (None, "")]
            allowed = _OF_TYPE.get(template.type, ())
            if "value" in output and "valueFrom" in output:
                yield Violation(path, "it has both value and valueFrom", "keep one of them")
            elif "value" not in output and "valueFrom" not in output:
                fix = f"add valueFrom.{allowed[0]}" if allowed else "add value or valueFrom"
                yield Violation(path, f"output `{output.get('name', '')}` comes from nowhere", fix)
            elif "valueFrom" in output and len(has) != 1:
                what = f"`valueFrom` has {' and '.join(has)}" if has else "`valueFrom` says not where from"
                yield Violation(join(path, "valueFrom"), what, f"give exactly one of {', '.join(allowed or _SOURCES)}")
            elif has and allowed and has[0] not in allowed:
                what = f"`{has[0]}` is not for outputs of a {template.type}"
                yield Violation(join(path, "valueFrom"), what, f"use {' or '.join(allowed)}")


def artifact_path(document: Document) -> Iterator[Violation]:
    """An artifact of a leaf has no `path`, one of a `dag` or `steps` has one, or a path climbs out by `..`."""
    for template in document.templates:
        for part in ("inputs", "outputs"):
            for path, artifact in template.parts(part, "artifacts"):
                where = str(artifact.get("path", ""))
                if template.is_leaf and not where:
                    fix = "add path: where it is in the container"
                    yield Violation(path, f"artifact `{artifact.get('name', '')}` has no path", fix)
                elif where and template.type in ("dag", "steps"):
                    fix = "leave path out; an output has from: '{{tasks.X.outputs.artifacts.Y}}'"
                    yield Violation(join(path, "path"), f"a {template.type} has no files of its own", fix)
                elif ".." in where.split("/"):
                    yield Violation(
                        join(path, "path"), f"`{where}` climbs out of its folder", "write the path without .."
                    )
