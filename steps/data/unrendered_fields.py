"""Values of messages that a chat template does not render, and that would not be learned.

All texts and numbers of a row are replaced by marks, and the row is rendered once more: each mark must be in the text.
Rows of a batch with the same keys are rendered alike, so one of them is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from steps.data.chat_rendering import Message, render_changed
from steps.data.message_fields import IDENTIFIERS
from steps.runtime.errors import BadInput

NESTED_IDENTIFIERS = ("id", "call_id", "index")
OPEN_KEYS = ("arguments", "properties")
"""Fields whose keys are data too."""
NOT_CHECKED = ("role", "train")
MAX_ROWS_SHOWN = 5
MAX_FIELDS_SHOWN = 10
Path = tuple[str | int, ...]
"""Position of a value in a row: index of the message, then keys and indices."""
Leaf = tuple[Path, Any]


def check_rendered(tokenizer: Any, rows: Sequence[Sequence[Message]], texts: Sequence[str], first: int) -> None:
    """Check that the template renders all values of messages.

    Raises:
        BadInput: it ignores a value, which would not be learned; the message lists all fields with their rows.
    """
    alike: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(tuple(map(_shape_of_message, row)), []).append(index)
    ignored: dict[str, list[int]] = {}
    for indices in alike.values():
        index = indices[0]
        for name in _find_ignored(tokenizer, rows[index], texts[index], first + index):
            ignored.setdefault(name, []).extend(first + number for number in indices)
    if not ignored:
        return
    lines = []
    for name, found in list(ignored.items())[:MAX_FIELDS_SHOWN]:
        numbers = sorted(found)
        shown = ", ".join(map(str, numbers[:MAX_ROWS_SHOWN])) + (", ..." if len(numbers) > MAX_ROWS_SHOWN else "")
        lines.append(f"`{name}` in row{'s' * (len(numbers) > 1)} {shown}")
    if len(ignored) > MAX_FIELDS_SHOWN:
        lines.append(f"and {len(ignored) - MAX_FIELDS_SHOWN} more fields")
    raise BadInput(
        f"the model's chat template does not render these fields of messages: {'; '.join(lines)}",
        "remove them, move their text into content, or use a model or a ModelConfig.chat_template that renders them",
    )


def _shape_of_message(message: Message) -> Any:
    is_blank = not str(message["content"] or "").strip()
    if len(message) == 2:
        return message["role"], is_blank
    others = {key: value for key, value in message.items() if key != "content"}
    return message["role"], is_blank, _shape(others)


def _shape(value: Any) -> Any:
    """Return the keys and types of a value, and the texts that a template can select by."""
    if isinstance(value, dict):
        return tuple((key, value[key] if key in ("role", "type", "train") else _shape(value[key])) for key in value)
    if isinstance(value, list):
        return "list", *map(_shape, value)
    return type(value).__name__


def _find_ignored(tokenizer: Any, row: Sequence[Message], text: str, number: int) -> list[str]:
    """Return the names of ignored fields: of a whole field, or of values in it."""
    leaves = list(_leaves(row))
    missing = [
        leaf
        for leaf in _missing_marks(tokenizer, row, leaves, number)
        # The marks can have changed how the template renders others.
        if _is_ignored(tokenizer, row, leaf, text, number)
    ]
    names = dict.fromkeys(_name(row, path) for path in _missing_keys(row, text))
    for path, _ in missing:
        field = path[:2]
        is_whole = sum(leaf[0][:2] == field for leaf in leaves) == sum(leaf[0][:2] == field for leaf in missing)
        names[_name(row, field if is_whole else path)] = None
    return list(names)


def _leaves(row: Sequence[Message]) -> Iterator[Leaf]:
    """Yield the values of a row that must be rendered."""
    for index, message in enumerate(row):
        for key, value in message.items():
            if key not in (*NOT_CHECKED, *IDENTIFIERS):
                yield from _nested_leaves((index, key), value)


def _nested_leaves(path: Path, value: Any) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key, inner in value.items():
            is_data = path[-1] in OPEN_KEYS
            if is_data or (key not in NESTED_IDENTIFIERS and (key, inner) != ("type", "function")):
                yield from _nested_leaves((*path, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _nested_leaves((*path, index), inner)
    elif value is not None and (not isinstance(value, str) or value.strip()):
        yield path, value


def _missing_keys(row: Sequence[Message], text: str) -> Iterator[Path]:
    """Yield the keys of open objects that are not in the rendered text."""
    for path, _ in _leaves(row):
        for end, (parent, key) in enumerate(pairwise(path), 2):
            if parent in OPEN_KEYS and str(key) not in text and json.dumps(key)[1:-1] not in text:
                yield path[:end]


def _missing_marks(tokenizer: Any, row: Sequence[Message], leaves: Sequence[Leaf], number: int) -> list[Leaf]:
    """Return the leaves whose marks are not in the rendered text; all if the template rejects the marks."""
    changed, marks = list(row), []
    for index, (path, value) in enumerate(leaves):
        marks.append(_mark(index, value))
        changed = _replaced(changed, path, marks[-1])
    rendered = render_changed(tokenizer, changed, number)
    if rendered is None:
        return list(leaves)
    rendered = rendered.lower()
    return [
        leaf for leaf, mark in zip(leaves, marks, strict=True) if isinstance(mark, bool) or str(mark) not in rendered
    ]


def _is_ignored(tokenizer: Any, row: Sequence[Message], leaf: Leaf, text: str, number: int) -> bool:
    """Return True if the rendered text does not depend on a value."""
    path, value = leaf
    mark = _mark(0, value)
    rendered = render_changed(tokenizer, _replaced(row, path, mark), number)
    if rendered is None:
        return False
    return rendered == text or (path[1] == "content" and mark not in rendered.lower())


def _mark(index: int, value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return f"argotune{index:05d}m" if isinstance(value, str) else 770_000_000 + index


def _replaced(value: Any, path: Path, mark: Any) -> Any:
    """Return a copy of ``value`` with ``mark`` at ``path``."""
    if not path:
        return mark
    copy: Any = value.copy() if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], mark)
    return copy


def _name(row: Sequence[Message], path: Path) -> str:
    if path[1] == "content":
        return f"content of the {row[int(path[0])]['role']} message"
    return ".".join(part for part in path[1:] if isinstance(part, str))
