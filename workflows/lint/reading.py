"""Read the documents of a file: YAML or JSON, several in one file, or items of a ``List``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflows.errors import Problem
from workflows.field_path import join
from workflows.spec.source import Source, documents


@dataclass(frozen=True)
class Raw:
    """An object in a file."""

    value: Any
    source: Source
    path: str = ""
    """Path in its YAML document; empty unless it is an item of a ``List``."""

    @property
    def kind(self) -> str:
        """Its ``kind`` as a string."""
        return str(self.value.get("kind", "")) if isinstance(self.value, dict) else ""


def read(file: str, text: str) -> tuple[list[Raw], list[Problem]]:
    """Return all objects of a file, and its syntax errors."""
    parsed, problems = documents(text, file)
    raws = [Raw(string_keys(document.value), Source(file, document.lines)) for document in parsed]
    as_json = _parse_json(text)
    if as_json is not None:
        # JSON allows what YAML does not (tabs, \ud83d\ude00); from parsing it as YAML only the lines are used.
        lines = raws[0].source if len(raws) == 1 else Source(file)
        raws, problems = (
            [Raw(as_json, lines)],
            [problem for problem in problems if "is a duplicate" in problem.message],
        )
    return [item for raw in raws if raw.value is not None for item in _items(raw)], problems


def string_keys(value: Any) -> Any:
    """Return a copy of plain data with string keys, as in JSON: a label ``1`` becomes ``"1"``."""
    if isinstance(value, dict):
        return {
            key if type(key) is str else _key(key): string_keys(item) if isinstance(item, dict | list) else item
            for key, item in value.items()
        }
    return [string_keys(item) for item in value] if isinstance(value, list) else value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _parse_json(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _items(raw: Raw) -> Iterator[Raw]:
    items = raw.value.get("items") if isinstance(raw.value, dict) else None
    if not raw.kind.endswith("List") or not isinstance(items, list):
        yield raw
        return
    for index, item in enumerate(items):
        yield Raw(item, raw.source, join("items", index))
