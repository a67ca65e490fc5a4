"""Replaces Argo's simple tags, ``{{inputs.parameters.x}}``, in any part of the document.

A tag that begins with one of Argo's words must have a value; other text in double braces passes untouched, as in Argo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TAG = re.compile(r"\{\{\s*([^{}=\s][^{}]*?)\s*\}\}")
EXPRESSION_TAG = re.compile(r"\{\{\s*=")
_ARGO_WORDS = re.compile(r"(item|steps|inputs|outputs|pod|workflow|tasks)\.")


class Unresolved(Exception):
    """A tag has no value."""


@dataclass(frozen=True)
class MissingValue:
    """The output of a task that was skipped or omitted, or that did not write it, and that has no default."""

    why: str


Scope = Mapping[str, "str | MissingValue"]


def substitute(value: Any, scope: Scope) -> Any:
    """``value`` (text, or lists and maps of it) with every tag replaced, once.

    Raises:
        Unresolved: a tag of Argo's words has no value.
    """
    if isinstance(value, str):
        return TAG.sub(lambda match: _value(match, scope), value)
    if isinstance(value, list):
        return [substitute(item, scope) for item in value]
    if isinstance(value, dict):
        return {key: substitute(item, scope) for key, item in value.items()}
    return value


def tags(value: Any) -> Iterator[str]:
    """Every tag in ``value``."""
    if isinstance(value, str):
        yield from (match[1] for match in TAG.finditer(value))
    elif isinstance(value, list):
        for item in value:
            yield from tags(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tags(item)


def is_argo_tag(tag: str) -> bool:
    """Whether Argo itself would insist on a value for this tag."""
    return _ARGO_WORDS.match(tag) is not None


def absent_alone(text: str, scope: Scope) -> MissingValue | None:
    """What is absent, when ``text`` is nothing but one tag without a value: then a default may take its place."""
    match = TAG.fullmatch(text.strip())
    value = scope.get(match[1]) if match else None
    return value if isinstance(value, MissingValue) else None


def _value(match: re.Match[str], scope: Scope) -> str:
    value = scope.get(match[1])
    if isinstance(value, MissingValue):
        raise Unresolved(f"{{{{{match[1]}}}}} has no value: {value.why}")
    if value is None and is_argo_tag(match[1]):
        raise Unresolved(f"{{{{{match[1]}}}}} has no value")
    return match[0] if value is None else value
