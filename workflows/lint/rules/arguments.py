"""Arguments: values of parameters, their enums, where artifacts come from (Argo: ``validateArguments``)."""

from __future__ import annotations

from collections.abc import Iterator

from workflows.argo.document import Document, Value, listed, section
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.runner.scope import item_text

_GIVEN_FROM = ("configMapKeyRef", "event", "supplied")
_PRODUCED = ("path", "jsonPath", "jqFilter", "parameter", "expression")
_LOCATIONS = (
    "artifactory", "azure", "gcs", "git", "hdfs", "http", "oss", "plugin", "raw", "s3",
)  # fmt: skip


def argument_value(document: Document) -> Iterator[Violation]:
    """A parameter among arguments has neither `value` nor `valueFrom` (the arguments of a Workflow or template to be
    submitted may go without), or a `valueFrom` that arguments can't have.
    """
    for path, value in _parameters(document):
        source = section(value, "valueFrom")
        name = value.get("name", "")
        optional = path.startswith(join(document.path, "arguments")) and document.kind != "CronWorkflow"
        if "value" not in value and "valueFrom" not in value and not optional:
            yield Violation(path, f"parameter `{name}` has no value", "give value or valueFrom")
        if "valueFrom" in value and (not set(_GIVEN_FROM) & set(source) or set(_PRODUCED) & set(source)):
            what = f"`valueFrom` of an argument is one of {', '.join(_GIVEN_FROM)}"
            yield Violation(
                join(path, "valueFrom"), what, "give value, as in value: '{{tasks.a.outputs.parameters.b}}'"
            )


def enum(document: Document) -> Iterator[Violation]:
    """An `enum` is empty, or a value, a default, or an argument given to the parameter is not in it."""
    inputs = [place for template in document.templates for place in template.parts("inputs", "parameters")]
    for path, value in [*_parameters(document), *inputs]:
        if "enum" not in value:
            continue
        allowed = [item_text(item) for item in value["enum"]]
        if not allowed:
            yield Violation(join(path, "enum"), "the enum is empty", "list at least one value")
        for field in ("value", "default"):
            if allowed and field in value:
                yield from _outside(value[field], allowed, join(path, field))
    for call in document.calls:
        wanted = call.called.parts("inputs", "parameters") if call.called else []
        enums = {str(value.get("name")): [item_text(item) for item in value.get("enum", [])] for _, value in wanted}
        for path, value in listed(call.arguments, "parameters", join(call.path, "arguments")):
            allowed = enums.get(str(value.get("name")), [])
            if allowed and "value" in value and "enum" not in value:
                yield from _outside(value["value"], allowed, join(path, "value"))


def artifact_argument(document: Document) -> Iterator[Violation]:
    """An artifact among arguments comes from nowhere, or has both `from` and `fromExpression`; an artifact among
    inputs has `from`.
    """
    for place, arguments in _arguments(document):
        for path, value in listed(arguments, "artifacts", place):
            if not {"from", "fromExpression", *_LOCATIONS} & set(value):
                fix = "give from, fromExpression or a location such as s3"
                yield Violation(path, f"artifact `{value.get('name', '')}` comes from nowhere", fix)
            if value.get("from") and value.get("fromExpression"):
                yield Violation(path, "it has both `from` and `fromExpression`", "keep one of them")
    for template in document.templates:
        for path, value in template.parts("inputs", "artifacts"):
            if "from" in value:
                yield Violation(
                    join(path, "from"), "`from` has no place among inputs", "give it with the arguments of the call"
                )


def _outside(value: object, allowed: list[str], path: str) -> Iterator[Violation]:
    text = item_text(value)
    if "{{" not in text and text not in allowed:
        # YAML reads an unquoted YES, NO, on or off as a boolean, and Argo takes that for the text true or false.
        also = "; quote yes, no, on and off" if text in ("true", "false") else ""
        yield Violation(path, f"`{text}` is not in the enum", f"give one of {', '.join(allowed)}{also}")


def _arguments(document: Document) -> list[tuple[str, Value]]:
    calls = [(join(call.path, "arguments"), call.arguments) for call in document.calls]
    return [(join(document.path, "arguments"), section(document.spec, "arguments")), *calls]


def _parameters(document: Document) -> list[tuple[str, Value]]:
    return [found for path, arguments in _arguments(document) for found in listed(arguments, "parameters", path)]
