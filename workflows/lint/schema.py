"""Argo's JSON schema, made strict: an unknown field is an error, as in ``argo lint --strict``.

``workflow-schema.json`` is ``api/jsonschema/schema.json`` of argoproj/argo-workflows, tag v4.1.2 (Apache-2.0),
unchanged. On loading, unknown fields are forbidden, and what Argo accepts beyond the schema is allowed: numbers that
Argo converts to strings (``IntOrString``, quantities, parameters), and containers without the image that
``templateDefaults`` can set.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.runtime.validation_messages import format_value
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

SCHEMA = Path(__file__).with_name("workflow-schema.json")
KINDS = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")
_ARGO = "io.argoproj.workflow.v1alpha1."
_LOOSE = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
}
_ANY_STRING = ["string", "number", "boolean"]
"""Argo's ``AnyString``: a number or boolean becomes a string."""
REMOVED = {
    ("CronWorkflowSpec", "schedule"): ("4.0", 'use a list: schedules: ["0 3 * * 0"]'),
    ("Synchronization", "mutex"): ("4.0", "use a list: mutexes: [{name: ...}]"),
    ("Synchronization", "semaphore"): ("4.0", "use a list: semaphores: [{configMapKeyRef: ...}]"),
    ("WorkflowSpec", "podPriority"): ("3.7", "use podPriorityClassName with a PriorityClass"),
    ("Template", "priority"): ("3.7", "use priorityClassName with a PriorityClass"),
}
_TYPE_NAMES = {
    "object": "a mapping", "array": "a list", "string": "a string", "integer": "an integer", "number": "a number",
    "boolean": "true or false",
}  # fmt: skip
_EMPTY_VALUES: dict[str, Any] = {"object": {}, "array": [], "string": "", "integer": 0, "number": 0, "boolean": False}


def check(value: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], list[tuple[str, Violation]]]:
    """Return the document without values of the wrong type, and the violations with the ids of their rules."""
    document = without_nulls(value)
    violations = []
    wrong: list[tuple[list[str | int], Any]] = []
    seen = set()
    for error in sorted(strict(kind).iter_errors(document), key=lambda error: [str(p) for p in error.absolute_path]):
        for violation in _violations(error):
            if violation not in seen:
                seen.add(violation)
                violations.append(violation)
        if error.validator == "type":
            wrong.append((list(error.absolute_path), error.validator_value))
    for location, expected in wrong:
        document = _remove(document, location, expected)
    return document, violations


@cache
def strict(kind: str) -> Draft202012Validator:
    """Return the schema of a kind with unknown fields forbidden."""
    from jsonschema import Draft202012Validator

    schema = json.loads(SCHEMA.read_text())
    schema.pop("oneOf")
    schema["$ref"] = f"#/definitions/{_ARGO}{kind}"
    for name, definition in schema["definitions"].items():
        definition["$comment"] = name.rpartition(".")[2]
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    for name, types in _LOOSE.items():
        schema["definitions"][name]["type"] = types
    parameter = schema["definitions"][f"{_ARGO}Parameter"]["properties"]
    value_from = schema["definitions"][f"{_ARGO}ValueFrom"]["properties"]
    for field in (parameter["value"], parameter["default"], parameter["description"], value_from["default"]):
        field["type"] = _ANY_STRING
    parameter["enum"]["items"]["type"] = _ANY_STRING
    for name in ("io.k8s.api.core.v1.Container", f"{_ARGO}ScriptTemplate"):
        schema["definitions"][name].pop("required")
    return Draft202012Validator(schema)


def without_nulls(value: Any, key: str = "") -> Any:
    """Return a copy without null fields, which Kubernetes treats as absent."""
    if key in ("withItems", "plugin"):
        return value
    if isinstance(value, Mapping):
        return {name: without_nulls(item, name) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _violations(error: ValidationError) -> Iterator[tuple[str, Violation]]:
    path = ""
    for part in error.absolute_path:
        path = join(path, part)
    match error.validator:
        case "additionalProperties":
            known = error.schema["properties"]
            for name in error.instance:
                if name not in known:
                    yield _unknown_field(join(path, name), name, str(error.schema.get("$comment", "")), known)
        case "required":
            for name in error.validator_value:
                if name not in error.instance:
                    about = error.schema["properties"].get(name, {}).get("description", "").split("\n")[0]
                    fix = f"add {name}: {about.split('. ')[0]}".rstrip(": ")
                    yield "missing-field", Violation(path or name, f"`{name}` is required", fix)
        case "type":
            yield "wrong-type", Violation(path, *_wrong_type(error.validator_value, error.instance))
        case _:
            yield (
                "wrong-type",
                Violation(path, f"must be {format_value(error.validator_value)}, not {format_value(error.instance)}"),
            )


def _unknown_field(path: str, name: str, owner: str, known: Mapping[str, Any]) -> tuple[str, Violation]:
    if (owner, name) in REMOVED:
        version, fix = REMOVED[owner, name]
        return "removed-field", Violation(path, f"Argo {version} removed `{name}`: it is rejected or ignored", fix)
    return "unknown-field", Violation(
        path, f"{owner or 'the object'} has no field `{name}`", _suggest_field(name, known)
    )


def _suggest_field(name: str, known: Mapping[str, Any]) -> str:
    near = unknown(name, known)
    if near.startswith("did you mean") or len(known) <= 12:
        return near
    owner = next((field for field, value in known.items() if name in _fields(value)), "")
    return f"move it to {owner}" if owner else "remove it; see docs/fields.md of Argo for the fields"


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = json.loads(SCHEMA.read_text())["definitions"]
    return definitions


def _fields(field: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = str(field.get("$ref", ""))
    return _definitions().get(reference.removeprefix("#/definitions/"), {}).get("properties", {}) if reference else {}


def _wrong_type(expected: str | list[str], instance: Any) -> tuple[str, str]:
    first = expected if isinstance(expected, str) else expected[0]
    fix = "put it in quotes" if first == "string" and isinstance(instance, int | float) else ""
    if first in ("integer", "number", "boolean") and isinstance(instance, str):
        plain = instance.lower() in ("true", "false") or instance.lstrip("-").replace(".", "", 1).isdecimal()
        fix = "remove the quotes" if plain else f"use {_TYPE_NAMES[first]}"
    elif first == "object":
        fix = "use KEY: VALUE lines below it"
    elif first == "array" and isinstance(instance, dict | str):
        fix = "start each item with a dash"
    return f"must be {_TYPE_NAMES.get(first, first)}, not {format_value(instance)}", fix


def _remove(document: Any, location: list[str | int], expected: str | list[str]) -> Any:
    """Remove the value at a location; an item of a list becomes an empty value, so that indices do not change."""
    if not location:
        return {}
    *parents, last = location
    value = document
    for part in parents:
        value = value[part]
    if isinstance(last, int):
        value[last] = _EMPTY_VALUES[expected if isinstance(expected, str) else expected[0]]
    else:
        value.pop(last, None)
    return document
