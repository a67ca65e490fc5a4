"""The formats that rows come in; ``row_messages.py`` makes messages of them.

===================  ===========================================================  =======================
format               columns                                                      known from
===================  ===========================================================  =======================
preference           ``chosen`` and ``rejected``, ``prompt`` may be there: each   TRL, UltraFeedback
                     a text or a list of ``{role, content}``; without ``prompt``
                     they are lists that begin with it
messages             ``messages``: a list of ``{role, content}``                  OpenAI, TRL
sharegpt             ``conversations``: a list of ``{from, value}``               ShareGPT, Vicuna
prompt-completion    ``prompt`` and ``completion``: each a text or such a list    TRL
instruction          ``instruction``, ``output``; ``input`` may be there          Alpaca
text                 ``text``: no conversation, every token is learned            continued pretraining
===================  ===========================================================  =======================

Columns of other names are mapped: ``{"prompt": "question"}`` reads the column ``question`` as ``prompt``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["preference", "messages", "sharegpt", "prompt-completion", "instruction", "text"]
Columns = Mapping[str, str]
"""Name that a format knows a column by -> the column's name in the files."""

NEEDED = (
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
]
"""What the formats call their columns."""
KNOWN: tuple[Column, ...] = get_args(Column)


@dataclass(frozen=True)
class _Kind:
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    lists: tuple[str, str] | None
    """Fields of the list's elements, where a column may hold a list."""
    texts: bool
    """Whether columns may hold text."""


FORMATS: dict[Format, _Kind] = {
    "preference": _Kind(("chosen", "rejected"), ("prompt",), ("role", "content"), True),
    "messages": _Kind(("messages",), (), ("role", "content"), False),
    "sharegpt": _Kind(("conversations",), (), ("from", "value"), False),
    "prompt-completion": _Kind(("prompt", "completion"), (), ("role", "content"), True),
    "instruction": _Kind(("instruction", "output"), ("input",), None, True),
    "text": _Kind(("text",), (), None, True),
}
"""In the order in which they are looked for: what is common beside the columns of another format comes last."""


def of_schema(name: str, schema: pa.Schema, columns: Columns) -> Format:
    """The format of a file called ``name``.

    Raises:
        BadInput: no format's columns are there, or they hold something else.
    """
    there = _by_known_name(schema.names, columns)
    if missing := sorted(f"`{column}`" for known, column in columns.items() if known not in there):
        raise BadInput(f"{name}: no column {', '.join(missing)}, which `columns` names", f"there are {_names(schema)}")
    for found, kind in FORMATS.items():
        if set(kind.columns) <= set(there):
            _check_types(name, schema, kind, there)
            return found
    raise BadInput(
        f"{name}: no columns to tune on; there are {_names(schema)}",
        f"needed is {NEEDED}: rename or add them, or say with `columns` what they are called",
    )


def used_columns(data_format: Format, names: Iterable[str], columns: Columns) -> dict[str, str]:
    """Columns to read: the format's name for each, and the file's."""
    there = _by_known_name(names, columns)
    kind = FORMATS[data_format]
    return {name: there[name] for name in (*kind.columns, *kind.optional) if name in there}


def _by_known_name(names: Iterable[str], columns: Columns) -> dict[str, str]:
    given = set(names)
    taken = set(columns.values())
    own = {name: name for name in KNOWN if name in given and name not in columns and name not in taken}
    return own | {known: column for known, column in columns.items() if column in given}


def _check_types(name: str, schema: pa.Schema, kind: _Kind, there: Mapping[str, str]) -> None:
    wrong = []
    for column in (there[known] for known in (*kind.columns, *kind.optional) if known in there):
        found = schema.field(column).type
        if not ((kind.texts and _is_text(found)) or (kind.lists and _is_list_of(found, kind.lists))):
            wrong.append(f"`{column}` is {found}")
    if wrong:
        raise BadInput(f"{name}: the column {' and '.join(wrong)}", f"needed is {NEEDED}; contents are text")
    answers = [there[known] for known in ("chosen", "rejected") if known in kind.columns]
    if "prompt" not in there and (texts := [name for name in answers if _is_text(schema.field(name).type)]):
        raise BadInput(
            f"{name}: the column `{texts[0]}` is text, and there is no `prompt` that says what it answers",
            "add a column `prompt`, or give both as lists of {role, content} that begin with the prompt",
        )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_list_of(kind: pa.DataType, names: tuple[str, str]) -> bool:
    import pyarrow as pa

    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    fields = {entry.name: entry.type for entry in kind.value_type}
    return all(name in fields and _is_text(fields[name]) for name in names)


def _names(schema: pa.Schema) -> str:
    return ", ".join(f"`{name}`" for name in schema.names) or "none"
