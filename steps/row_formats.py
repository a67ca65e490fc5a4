"""The formats that rows of chat data come in, and how each becomes messages.

===================  ===========================================================  =====================
format               columns                                                      known from
===================  ===========================================================  =====================
messages             ``messages``: a list of ``{role, content}``                  OpenAI, TRL
sharegpt             ``conversations``: a list of ``{from, value}``               ShareGPT, Vicuna
prompt-completion    ``prompt`` and ``completion``: each a text or such a list    TRL
instruction          ``instruction``, ``output``; ``input`` may be there          Alpaca
===================  ===========================================================  =====================

Columns of other names are mapped: ``{"prompt": "question"}`` reads the column ``question`` as ``prompt``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from steps.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["messages", "sharegpt", "prompt-completion", "instruction"]
Message = dict[str, Any]
Columns = Mapping[str, str]
"""Name that a format knows a column by -> the column's name in the files."""

NEEDED = (
    "a column `messages` (a list of {role, content} a row) or `conversations` (a list of {from, value}), "
    "or the columns `prompt` and `completion`, or `instruction` and `output`"
)
Column = Literal["messages", "conversations", "prompt", "completion", "instruction", "input", "output"]
"""What the formats call their columns."""
KNOWN: tuple[Column, ...] = get_args(Column)
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class _Kind:
    columns: tuple[str, ...]
    optional: tuple[str, ...]
    lists: tuple[str, str] | None
    """Fields of the list's elements, where a column may hold a list."""
    texts: bool
    """Whether columns may hold text."""


FORMATS: dict[Format, _Kind] = {
    "messages": _Kind(("messages",), (), ("role", "content"), False),
    "sharegpt": _Kind(("conversations",), (), ("from", "value"), False),
    "prompt-completion": _Kind(("prompt", "completion"), (), ("role", "content"), True),
    "instruction": _Kind(("instruction", "output"), ("input",), None, True),
}
"""In the order in which they are looked for."""


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


def to_messages(data_format: Format, values: Mapping[str, list[Any]]) -> list[list[Message] | None]:
    """Rows as messages, None for a row without a value; ``values`` has the format's columns."""
    if data_format == "messages":
        return values["messages"]
    if data_format == "sharegpt":
        return [_from_sharegpt(row) for row in values["conversations"]]
    if data_format == "prompt-completion":
        return [_joined(*pair) for pair in zip(values["prompt"], values["completion"], strict=True)]
    inputs = values.get("input") or [None] * len(values["output"])
    return [_instructed(*row) for row in zip(values["instruction"], inputs, values["output"], strict=True)]


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


def _from_sharegpt(row: list[dict[str, Any]] | None) -> list[Message] | None:
    if row is None:
        return None
    # A role that is not known stays, so that it is told as a fault of the row.
    return [
        turn and {"role": SHAREGPT_ROLES.get(turn["from"], turn["from"]), "content": turn["value"]} for turn in row
    ]


def _joined(prompt: str | list[Message] | None, completion: str | list[Message] | None) -> list[Message] | None:
    if prompt is None or completion is None:
        return None
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return asked + ([{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion)


def _instructed(instruction: str | None, more: str | None, output: str | None) -> list[Message] | None:
    if instruction is None or output is None:
        return None
    asked = f"{instruction}\n\n{more}" if more and more.strip() else instruction
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": output}]
