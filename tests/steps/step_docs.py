"""docs/STEPS.md: the flags and output parameters of each step, from ``steps/*/settings.py``."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pydantic
from schema_text import default_of, one_line, type_of

from steps.runtime.entrypoint import flag

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "STEPS.md"
STEPS = sorted(file.parent.name for file in (ROOT / "steps").glob("*/settings.py"))
INTRODUCTION = """\
# Steps

Each pod of a Workflow runs one step; `preview` and `tune_bench` are for `argotune preview` and `argotune tune-bench`
only. To run a step yourself, use `python -m steps.NAME FLAGS`, with lists and maps as JSON. A step prints its output
parameters, and writes one file per parameter to the directory `ARGOTUNE_OUTPUTS`.

This page is generated from `steps/*/settings.py` by
`ARGOTUNE_REGENERATE=1 pytest tests/steps/test_step_docs.py`.
"""


def document() -> str:
    """Return the text of docs/STEPS.md."""
    return "\n".join([INTRODUCTION, *(line for step in STEPS for line in _section(step))])


def _section(step: str) -> Iterator[str]:
    module = importlib.import_module(f"steps.{step}.settings")
    yield f"## {step}\n\n{one_line(module.Settings.__doc__)}\n"
    yield "| flag | type | default | description |\n|---|---|---|---|"
    schema = module.Settings.model_json_schema()
    for name, field in schema["properties"].items():
        default = "required" if name in schema.get("required", ()) else default_of(field["default"])
        yield f"| `{flag(name)}` | {type_of(field, schema)} | {default} | {one_line(field['description'])} |"
    yield f"\nOutput parameters of `{step}`:\n\n| name | type | description |\n|---|---|---|"
    descriptions = field_docstrings(module.Result)
    schema = pydantic.TypeAdapter(module.Result).json_schema()
    for name, field in schema["properties"].items():
        yield f"| `{name.replace('_', '-')}` | {type_of(field, schema)} | {one_line(descriptions[name])} |"
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
