"""Supported formats of rows; ``row_messages.py`` converts them to messages.

===================  ===========================================================  =======================
format               columns                                                      used by
===================  ===========================================================  =======================
preference           ``chosen``, ``rejected``, optionally ``prompt``: each        TRL, UltraFeedback
                     a text or a list of ``{role, content}``; without ``prompt``
                     they are lists that begin with it
messages             ``messages``: a list of ``{role, content}``                  OpenAI, TRL
sharegpt             ``conversations``: a list of ``{from, value}``               ShareGPT, Vicuna
prompt-completion    ``prompt`` and ``completion``: each a text or such a list    TRL
instruction          ``instruction``, ``output``, optionally ``input``            Alpaca
text                 ``text``: plain text, every token is learned                 continued pretraining
===================  ===========================================================  =======================

Columns of other names are mapped: ``{"prompt": "question"}`` reads the column ``question`` as ``prompt``. A mapping
selects the format, also if the columns of another one exist. ``tools`` (a list, or JSON text) is passed to the chat
template; in ``sharegpt`` and ``instruction`` only if it is mapped. ``system``, if mapped, is the first message.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["preference", "messages", "sharegpt", "prompt-completion", "instruction", "text"]
Columns = Mapping[str, str]
"""Column name of the format -> column name in the files."""

SUPPORTED = (
    "a column `messages` (a list of {role, content} a row) or `conversations` (a list of {from, value}), "
    "or the columns `prompt` and `completion`, or `instruction` and `output`, or `chosen` and `rejected`, or `text`"
)
Column = Literal[
    "messages",
    "conversations",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "chosen",
    "rejected",
    "text",
    "system",
    "tools",
]
"""Column names of the formats."""
COLUMN_NAMES: tuple[Column, ...] = get_args(Column)


@dataclass(frozen=True)
class _Kind:
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    lists: tuple[str, str] | None
    """Fields of the list elements, if columns can be lists."""
    texts: bool
    """Columns can be text."""


FORMATS: dict[Format, _Kind] = {
    "preference": _Kind(("chosen", "rejected"), ("prompt", "tools"), ("role", "content"), True),
    "messages": _Kind(("messages",), ("tools",), ("role", "content"), False),
    "sharegpt": _Kind(("conversations",), (), ("from", "value"), False),
    "prompt-completion": _Kind(("prompt", "completion"), ("tools",), ("role", "content"), True),
    "instruction": _Kind(("instruction", "output"), ("input",), None, True),
    "text": _Kind(("text",), (), None, True),
}
"""In order of detection: columns that often accompany those of another format are last."""
MAPPED_ONLY = ("system", "tools")
"""Columns that every format of chats can have, if they are mapped."""
MIN_LIKENESS = 0.8
"""Similarity (``difflib``) from which a name is a misspelled one: one letter of `prompt` may be missing."""
KNOWN_UNUSED = ("system", "tools", "functions", "history", "images", "image", "videos", "audio")
"""Columns that change a conversation, so that a warning names them if they are not used."""


def detect_format(name: str, schema: pa.Schema, columns: Columns) -> Format:
    """Return the format of a file called ``name``, whose ``schema`` has canonical types.

    Raises:
        BadInput: the file has no format's columns, or they have other types.
    """
    existing = _by_known_name(schema.names, columns)
    if missing := sorted(f"`{column}`" for known, column in columns.items() if known not in existing):
        raise BadInput(
            f"{name}: columns not found: {', '.join(missing)}", f"map `columns` to one of {_format_names(schema)}"
        )
    for data_format in _by_preference(columns):
        kind = FORMATS[data_format]
        if set(kind.columns) <= set(existing):
            _check_types(name, schema, kind, existing)
            return data_format
    present = _format_names(schema)
    if renames := rename_misspelled(schema.names, COLUMN_NAMES):
        present += f" ({renames})"
    raise BadInput(
        f"{name}: no columns to tune on, only {present}",
        f"add or rename columns, or map them with `columns`; supported: {SUPPORTED}",
    )


def rename_misspelled(names: Iterable[str], known: Iterable[str]) -> str:
    """Return how to rename columns whose names are nearly those of known ones; empty if there are none."""
    existing = set(names)
    absent = [name for name in known if name not in existing]
    near = {name: difflib.get_close_matches(name.lower(), absent, 1, MIN_LIKENESS) for name in names}
    return " and ".join(f"rename `{name}` to `{matches[0]}`" for name, matches in near.items() if matches)


def used_columns(data_format: Format, names: Iterable[str], columns: Columns) -> dict[str, str]:
    """Return the columns to read: the format's name for each -> the file's."""
    existing = _by_known_name(names, columns)
    kind = FORMATS[data_format]
    mapped = [name for name in MAPPED_ONLY if name in columns and data_format != "text"]
    used = dict.fromkeys((*kind.columns, *kind.optional, *mapped))
    return {name: existing[name] for name in used if name in existing}


def unused_warnings(unused: Iterable[str]) -> list[str]:
    """Return a warning for each unused column that would change what is learned."""
    hints = {name: f": map it with pipeline.data.columns: {{{name}: {name}}}" for name in MAPPED_ONLY}
    return [f"the column `{name}` is not used{hints.get(name, '')}" for name in unused if name in KNOWN_UNUSED]


def _by_preference(columns: Columns) -> list[Format]:
    """Return the formats in order of detection, first those that have most of the mapped columns."""

    def num_mapped(data_format: Format) -> tuple[int, int]:
        kind = FORMATS[data_format]
        return sum(name in kind.columns for name in columns), sum(name in kind.optional for name in columns)

    return sorted(FORMATS, key=num_mapped, reverse=True)


def _by_known_name(names: Iterable[str], columns: Columns) -> dict[str, str]:
    available = set(names)
    mapped = set(columns.values())
    unmapped = {
        name: name for name in COLUMN_NAMES if name in available and name not in columns and name not in mapped
    }
    return unmapped | {known: column for known, column in columns.items() if column in available}


def _check_types(name: str, schema: pa.Schema, kind: _Kind, existing: Mapping[str, str]) -> None:
    errors = []
    checked = [known for known in (*kind.columns, *kind.optional) if known in existing and known != "tools"]
    for column in (existing[known] for known in checked):
        column_type = schema.field(column).type
        if not ((kind.texts and _is_text(column_type)) or (kind.lists and _is_list_with(column_type, kind.lists))):
            errors.append(f"`{column}` is {column_type}")
    if errors:
        raise BadInput(
            f"{name}: unsupported column type: {' and '.join(errors)}", f"supported: {SUPPORTED}, with text contents"
        )
    answers = [existing[known] for known in ("chosen", "rejected") if known in kind.columns]
    if "prompt" not in existing and (texts := [name for name in answers if _is_text(schema.field(name).type)]):
        raise BadInput(
            f"{name}: the column `{texts[0]}` is text, but the column `prompt` is missing",
            "add a column `prompt`, or use lists of {role, content} that begin with the prompt",
        )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_null(kind)


def _is_list_with(kind: pa.DataType, names: tuple[str, str]) -> bool:
    import pyarrow as pa

    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {entry.name: entry.type for entry in kind.value_type}
    return all(name in fields and _is_text(fields[name]) for name in names)


def _format_names(schema: pa.Schema) -> str:
    return ", ".join(f"`{name}`" for name in schema.names) or "none"
