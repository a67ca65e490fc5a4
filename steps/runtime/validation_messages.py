"""Messages for pydantic's validation errors, in the wording of argotune's other messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from steps.runtime.redaction import redact

MAX_LENGTH = 80
_REQUIREMENTS = {
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


def describe(error: Mapping[str, Any] | ErrorDetails) -> str:
    """Return the message of one entry of ``ValidationError.errors()``, without its location."""
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "unknown field"
        case "literal_error":
            return f"must be {error['ctx']['expected']}, not {format_value(error['input'])}"
        case "value_error":
            return str(error["ctx"]["error"])
    message = _REQUIREMENTS.get(error["type"]) or _reword(error["msg"])
    return f"{message}, not {_format_input(error)}"


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
    is_bound = error["type"].startswith(("greater_than", "less_than"))
    return value if is_bound and isinstance(value, str) else format_value(value)
