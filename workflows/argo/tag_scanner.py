"""Find tags in a text as Argo's template engine does (fasttemplate): a tag ends at the next ``}}``, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

PLACEHOLDER = "\0"
"""Stands for the value of a nested tag."""


@dataclass(frozen=True)
class ScannedTag:
    """The text between the braces of a tag."""

    name: str
    is_closed: bool = True
    is_composite: bool = False
    """True if a part of the name is the value of a nested tag: ``{{steps.run-{{inputs.parameters.x}}.status}}``."""


def scan(text: str, has: Callable[[str], bool]) -> Iterator[ScannedTag]:
    """Yield the simple tags of a text; ``{{= }}`` is skipped.

    Args:
        text: one value of a document.
        has: returns True if a nested tag has a value, which Argo inserts first.
    """
    start = text.find("{{")
    while start >= 0:
        end = text.find("}}", start + 2)
        if end < 0:
            yield ScannedTag(text[start + 2 :].strip(), is_closed=False)
            return
        tag = text[start + 2 : end]
        inner = tag.rfind("{{")
        if not tag.startswith("=") and inner > 0 and has(tag[inner + 2 :]):
            text = f"{text[: start + 2]}{tag[:inner]}{PLACEHOLDER}{text[end + 2 :]}"
            continue
        if not tag.startswith("="):
            yield ScannedTag(tag.strip(), is_composite=PLACEHOLDER in tag)
        start = text.find("{{", end + 2)
