"""Replace Argo's simple tags, ``{{inputs.parameters.x}}``, in any part of a document.

A tag that begins with a reserved word must have a value; other text in double braces is not changed, as in Argo.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TAG = re.compile(r"(?<!\{)\{\{\s*([^{}=\s][^{}]*?)\s*\}\}")
"""A tag, its name as group 1. Argo reads ``{{{x}}`` from the first brace, as a tag with the name ``{x``."""
EXPRESSION_TAG = re.compile(r"\{\{\s*=")
_RESERVED_WORDS = re.compile(r"(item|steps|inputs|outputs|pod|workflow|tasks)\.")


class Unresolved(Exception):
    """A tag has no value."""


@dataclass(frozen=True)
class MissingValue:
    """An output without value or default: the task was skipped or omitted, or did not write it."""

    reason: str


Scope = Mapping[str, "str | MissingValue"]


def substitute(value: Any, scope: Scope) -> Any:
    """Return ``value`` (a string, or lists and mappings of strings) with every tag replaced once.

    Raises:
        Unresolved: a tag with a reserved word has no value.
    """
    if isinstance(value, str):
        return TAG.sub(lambda match: _value(match, scope), value)
    if isinstance(value, list):
        return [substitute(item, scope) for item in value]
    if isinstance(value, dict):
        return {key: substitute(item, scope) for key, item in value.items()}
    return value


def tags(value: Any) -> Iterator[str]:
    """Yield every tag in ``value``."""
    if isinstance(value, str):
        yield from (match[1] for match in TAG.finditer(value))
    elif isinstance(value, list):
        for item in value:
            yield from tags(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tags(item)


def without_tags(text: str, value: str = "x") -> str:
    """Return the text with every tag, nested ones first, replaced by a value."""
    before = ""
    while before != text:
        before, text = text, TAG.sub(value, text)
    return text


def is_argo_tag(tag: str) -> bool:
    """Return True if Argo requires a value for this tag."""
    return _RESERVED_WORDS.match(tag) is not None


def item_text(item: Any) -> str:
    """Return an item as Argo inserts it into a string: a string unchanged, other values as JSON."""
    return item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))


def missing_value(text: str, scope: Scope) -> MissingValue | None:
    """Return the missing value of a text that is a single tag, so that a default can replace it; else None."""
    match = TAG.fullmatch(text.strip())
    value = scope.get(match[1]) if match else None
    return value if isinstance(value, MissingValue) else None


def _value(match: re.Match[str], scope: Scope) -> str:
    value = scope.get(match[1])
    if isinstance(value, MissingValue):
        raise Unresolved(f"{{{{{match[1]}}}}} has no value: {value.reason}")
    if value is None and is_argo_tag(match[1]):
        raise Unresolved(f"{{{{{match[1]}}}}} has no value")
    return match[0] if value is None else value
