"""Messages for pydantic's validation errors, in the wording of argotune's other messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from steps.runtime.redaction import redact

MAX_LENGTH = 80
REQUIREMENTS = {
    "string_type": "must be a string",
    "path_type": "must be a path",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "invalid_key": "has a key that is not a string",
    "json_invalid": "must be JSON",
}
"""Requirements by pydantic's error type; other types keep pydantic's wording."""
BOUNDS = {
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number of at least {ge}",
    "less_than": "write a number below {lt}",
    "less_than_equal": "write a number of at most {le}",
}
"""Fixes for numbers out of bounds, by pydantic's error type."""


def describe(error: Mapping[str, Any] | ErrorDetails) -> str:
    """Return the message of one entry of ``ValidationError.errors()``, without its location."""
    if error["type"] in ("missing", "extra_forbidden", "value_error"):
        return requirement(error)
    message, value = requirement(error), _format_input(error)
    return f"{message}, not {value}"


def requirement(error: Mapping[str, Any] | ErrorDetails) -> str:
    """Return what the value of one entry of ``ValidationError.errors()`` must be, without the value."""
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "unknown field"
        case "literal_error":
            return f"must be {error['ctx']['expected']}"
        case "value_error":
            return str(error["ctx"]["error"])
    return REQUIREMENTS.get(error["type"]) or _reword(error["msg"])


def fix(error: Mapping[str, Any] | ErrorDetails) -> str:
    """Return what to write instead of the value of one entry of ``ValidationError.errors()``; empty if unknown."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in BOUNDS:
        bounds = {name: int(value) if value == int(value) else value for name, value in context.items()}
        return BOUNDS[kind].format(**bounds)
    if kind == "literal_error":
        near, allowed = near_choice(error), _choices(error)
        return f"did you mean {near}?" if near else f"write {' or '.join(allowed)}"
    requirement = REQUIREMENTS.get(kind, "")
    return requirement.replace("must be", "write", 1) if requirement.startswith("must be") else ""


def near_choice(error: Mapping[str, Any] | ErrorDetails) -> str:
    """Return the allowed text that resembles the value of one entry of ``ValidationError.errors()``; empty if none."""
    return next(iter(difflib.get_close_matches(str(error["input"]), _choices(error), n=1)), "")


def _choices(error: Mapping[str, Any] | ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", error["ctx"]["expected"]) if error["type"] == "literal_error" else []


def format_value(value: Any) -> str:
    """Return a value for a message: redacted, at most ``MAX_LENGTH`` characters."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(redact(value))
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _reword(message: str) -> str:
    return message.replace("Input should", "must").replace("String should", "must")


def _format_input(error: Mapping[str, Any]) -> str:
    """Return the rejected value; a number that is out of bounds without quotes, also if it was a flag's text."""
    value = error["input"]
    return value if error["type"] in BOUNDS and isinstance(value, str) else format_value(value)
