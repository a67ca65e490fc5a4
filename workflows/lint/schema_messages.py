"""Messages about violations of Argo's schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steps.runtime.validation_messages import format_value
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

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


def path_text(path: tuple[Any, ...]) -> str:
    """Return a field path as text."""
    text = ""
    for part in path:
        text = join(text, part)
    return text


def unknown_field(path: tuple[Any, ...], definition: str, definitions: Mapping[str, Any]) -> tuple[str, Violation]:
    """Return the rule and the violation of a field that a definition does not have."""
    name, owner, known = path[-1], definition.rpartition(".")[2], definitions[definition]["properties"]
    if (owner, name) in REMOVED:
        version, fix = REMOVED[owner, name]
        message = f"Argo {version} removed `{name}`: it is rejected or ignored"
        return "removed-field", Violation(path_text(path), message, fix)
    message = f"{owner or 'the object'} has no field `{name}`"
    return "unknown-field", Violation(path_text(path), message, _suggest_field(name, known, definitions))


def missing_field(name: str, about: str) -> tuple[str, str]:
    """Return message and fix for a missing field, whose description is ``about``."""
    return f"`{name}` is required", f"add {name}: {about.split(chr(10))[0].split('. ')[0]}".rstrip(": ")


def wrong_constant(constant: Any, value: Any) -> str:
    """Return the message about a value that must be a constant."""
    return f"must be {format_value(constant)}, not {format_value(value)}"


def wrong_type(types: tuple[str, ...], value: Any) -> tuple[str, str]:
    """Return message and fix for a value of the wrong type."""
    first = types[0]
    fix = "put it in quotes" if first == "string" and isinstance(value, int | float) else ""
    if first in ("integer", "number", "boolean") and isinstance(value, str):
        plain = value.lower() in ("true", "false") or value.lstrip("-").replace(".", "", 1).isdecimal()
        fix = "remove the quotes" if plain else f"use {_TYPE_NAMES[first]}"
    elif first == "object":
        fix = "use KEY: VALUE lines below it"
    elif first == "array" and isinstance(value, dict | str):
        fix = "start each item with a dash"
    return f"must be {_TYPE_NAMES.get(first, first)}, not {format_value(value)}", fix


def _suggest_field(name: str, known: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    near = unknown(name, known)
    if near.startswith("did you mean") or len(known) <= 12:
        return near
    owner = next((field for field in known if name in _fields_of(field, known, definitions)), "")
    return f"move it to {owner}" if owner else "remove it; see docs/fields.md of Argo for the fields"


def _fields_of(field: str, known: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    definition = str(known[field].get("$ref", "")).removeprefix("#/definitions/")
    fields: Mapping[str, Any] = definitions.get(definition, {}).get("properties", {})
    return fields
