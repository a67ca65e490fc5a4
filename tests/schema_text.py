"""Text of generated reference pages: types of JSON schemas, defaults and docstrings as cells of tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
TYPES = {"array": "JSON list", "object": "JSON map"}


def type_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema in words, with its bounds."""
    if "$ref" in field:
        return type_of(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(type_of(option, schema) for option in field["anyOf"] if option != {"type": "null"})
    if "enum" in field:
        return one_line(" | ".join(f"`{value}`" if value else '`""`' for value in field["enum"]))
    name = "path" if field.get("format") == "path" else TYPES.get(field["type"], field["type"])
    return ", ".join([name, *(f"{sign} {field[bound]}" for bound, sign in BOUNDS.items() if bound in field)])


def default_of(value: Any) -> str:
    """Return a default as code; "" for none."""
    if value is None or value == "":
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def one_line(docstring: str) -> str:
    """Return a docstring as the text of one table cell."""
    return " ".join(docstring.split()).replace("``", "`").replace("|", "\\|")
