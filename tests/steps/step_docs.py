"""docs/STEPS.md: the flags and output parameters of each step, from ``steps/*/settings.py``."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from steps.runtime.entrypoint import flag

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "STEPS.md"
STEPS = sorted(file.parent.name for file in (ROOT / "steps").glob("*/settings.py"))
INTRODUCTION = """\
# Steps

Each pod of a Workflow runs one step; `preview` is for `argotune preview` only. To run a step yourself, use
`python -m steps.NAME FLAGS`, with lists and maps as JSON. A step prints its output parameters, and writes one file per
parameter to the directory `ARGOTUNE_OUTPUTS`.

This page is generated from `steps/*/settings.py` by
`ARGOTUNE_REGENERATE=1 pytest tests/steps/test_step_docs.py`.
"""
BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
TYPES = {"array": "JSON list", "object": "JSON map"}


def document() -> str:
    """Return the text of docs/STEPS.md."""
    return "\n".join([INTRODUCTION, *(line for step in STEPS for line in _section(step))])


def _section(step: str) -> Iterator[str]:
    module = importlib.import_module(f"steps.{step}.settings")
    yield f"## {step}\n\n{_text(module.Settings.__doc__)}\n"
    yield "| flag | type | default | description |\n|---|---|---|---|"
    schema = module.Settings.model_json_schema()
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else _default(field["default"])
        yield f"| `{flag(name)}` | {_type(field, schema)} | {default} | {_text(field['description'])} |"
    yield f"\nOutput parameters of `{step}`:\n\n| name | type | description |\n|---|---|---|"
    descriptions = field_docstrings(module.Result)
    schema = pydantic.TypeAdapter(module.Result).json_schema()
    for name, field in schema["properties"].items():
        yield f"| `{name.replace('_', '-')}` | {_type(field, schema)} | {_text(descriptions[name])} |"
    yield ""


def field_docstrings(dataclass: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass; "" for a field without one."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(dataclass))).body
    assert isinstance(definition, ast.ClassDef)
    docstrings = {}
    for field, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            has_docstring = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            docstrings[ast.unparse(field.target)] = str(following.value.value) if has_docstring else ""  # type: ignore[union-attr]
    return docstrings


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema in words, with its bounds."""
    if "$ref" in field:
        return _type(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(_type(option, schema) for option in field["anyOf"] if option != {"type": "null"})
    if "enum" in field:
        return _text(" | ".join(f"`{value}`" for value in field["enum"]))
    name = "path" if field.get("format") == "path" else TYPES.get(field["type"], field["type"])
    return ", ".join([name, *(f"{sign} {field[bound]}" for bound, sign in BOUNDS.items() if bound in field)])


def _default(value: Any) -> str:
    if value is None or value == "":
        return ""
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _text(docstring: str) -> str:
    """Return a docstring as the text of one table cell."""
    return " ".join(docstring.split()).replace("``", "`").replace("|", "\\|")
