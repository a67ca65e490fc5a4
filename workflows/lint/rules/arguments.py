"""Arguments: values of parameters, enums, sources of artifacts (Argo: ``validateArguments``)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.artifact import has_location
from workflows.argo.document import Document, Value, listed, section
from workflows.argo.tags import item_text
from workflows.field_path import join
from workflows.lint.rules.rule import Violation

_ARGUMENT_SOURCES = ("configMapKeyRef", "event", "supplied")
_OUTPUT_SOURCES = ("path", "jsonPath", "jqFilter", "parameter", "expression")


def argument_value(document: Document) -> Iterator[Violation]:
    """A parameter in `arguments` has neither `value` nor `valueFrom` (optional in the arguments of a Workflow or
    template, which are set on submission), or a `valueFrom` that arguments cannot have.
    """
    for path, value in _parameters(document):
        source = section(value, "valueFrom")
        name = value.get("name", "")
        optional = path.startswith(join(document.path, "arguments")) and document.kind != "CronWorkflow"
        if "value" not in value and "valueFrom" not in value and not optional:
            yield Violation(path, f"parameter `{name}` has no value", "add value or valueFrom")
        if "valueFrom" in value and (not set(_ARGUMENT_SOURCES) & set(source) or set(_OUTPUT_SOURCES) & set(source)):
            message = f"`valueFrom` of an argument must have one of {', '.join(_ARGUMENT_SOURCES)}"
            yield Violation(join(path, "valueFrom"), message, "use value: '{{tasks.a.outputs.parameters.b}}'")


def enum(document: Document) -> Iterator[Violation]:
    """An `enum` is empty, or does not contain the value, the default or an argument of the parameter."""
    arguments = _parameters(document)
    inputs = [part for template in document.templates for part in template.parts("inputs", "parameters")]
    for index, (path, value) in enumerate([*arguments, *inputs]):
        if "enum" not in value:
            continue
        allowed = [item_text(item) for item in value["enum"]]
        if not allowed:
            yield Violation(join(path, "enum"), "the enum is empty", "list at least one value")
        for field in ("value", "default"):
            if allowed and field in value:
                # Argo compares the value of an argument as written, also a tag.
                yield from _outside(value[field], allowed, join(path, field), tags=index < len(arguments))
    for call in document.calls:
        parameters = call.called.parts("inputs", "parameters") if call.called else []
        enums = {
            str(value.get("name")): [item_text(item) for item in value.get("enum", [])] for _, value in parameters
        }
        for path, value in listed(call.arguments, "parameters", join(call.path, "arguments")):
            allowed = enums.get(str(value.get("name")), [])
            if allowed and "value" in value and "enum" not in value:
                yield from _outside(value["value"], allowed, join(path, "value"))


def artifact_argument(document: Document) -> Iterator[Violation]:
    """An artifact in `arguments` has no source, or both `from` and `fromExpression`; an artifact in `inputs` has
    `from`.
    """
    for arguments_path, arguments in _arguments(document):
        for path, value in listed(arguments, "artifacts", arguments_path):
            if not value.get("from") and not has_location(value):
                fix = "add from, fromExpression or a location such as s3"
                yield Violation(path, f"artifact `{value.get('name', '')}` has no source", fix)
            if value.get("from") and value.get("fromExpression"):
                yield Violation(path, "`from` cannot be combined with `fromExpression`", "remove one of them")
    for template in document.templates:
        for path, value in template.parts("inputs", "artifacts"):
            if "from" in value:
                yield Violation(
                    join(path, "from"), "an input cannot have `from`", "move it to the arguments of the call"
                )


def _outside(value: object, allowed: list[str], path: str, *, tags: bool = False) -> Iterator[Violation]:
    text = item_text(value)
    if (tags or "{{" not in text) and text not in allowed:
        # YAML reads an unquoted YES, NO, on or off as a boolean, which Argo converts to the string true or false.
        also = "; quote yes, no, on and off" if text in ("true", "false") else ""
        yield Violation(path, f"`{text}` is not in the enum", f"use one of {', '.join(allowed)}{also}")


def _arguments(document: Document) -> list[tuple[str, Value]]:
    calls = [(join(call.path, "arguments"), call.arguments) for call in document.calls]
    return [(join(document.path, "arguments"), section(document.spec, "arguments")), *calls]


def _parameters(document: Document) -> list[tuple[str, Value]]:
    return [part for path, arguments in _arguments(document) for part in listed(arguments, "parameters", path)]
