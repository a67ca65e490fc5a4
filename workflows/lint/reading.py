"""From the text of a file to the documents in it: YAML or JSON, several in one file, or in a ``List``."""

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
    """One object as it stands in a file."""

    value: Any
    source: Source
    path: str = ""
    """Where in its YAML document it stands; empty unless it is an item of a ``List``."""

    @property
    def kind(self) -> str:
        """Its ``kind``, as text."""
        return str(self.value.get("kind", "")) if isinstance(self.value, dict) else ""


def read(file: str, text: str) -> tuple[list[Raw], list[Problem]]:
    """All objects of a file, and what is wrong with its syntax."""
    parsed, problems = documents(text, file)
    raws = [Raw(keys_as_text(document.value), Source(file, document.lines)) for document in parsed]
    as_json = _json(text)
    if as_json is not None:
        # JSON may have what YAML has not (tabs, \ud83d\ude00); of its YAML reading only the lines are kept.
        lines = raws[0].source if len(raws) == 1 else Source(file)
        raws, problems = (
            [Raw(as_json, lines)],
            [problem for problem in problems if "is a duplicate" in problem.message],
        )
    return [item for raw in raws if raw.value is not None for item in _items(raw)], problems


def keys_as_text(value: Any) -> Any:
    """A copy of plain data whose keys are text, as in JSON: a label ``1`` is the label ``"1"``."""
    if isinstance(value, dict):
        return {_key(key): keys_as_text(item) for key, item in value.items()}
    return [keys_as_text(item) for item in value] if isinstance(value, list) else value


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _json(text: str) -> Any:
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
