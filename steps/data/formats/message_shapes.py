"""Canonical columns of conversations: contents of text parts as text, and ShareGPT lists with OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steps.data.formats import arrow_types
from steps.data.formats.value_types import CONTENT_KEYS

if TYPE_CHECKING:
    import pyarrow as pa

SHAREGPT = "conversations"
SHAREGPT_NAMES = {"role": "from", "content": "value"}


def canonical_schema(name: str, schema: pa.Schema, columns: Mapping[str, str]) -> pa.Schema:
    """Return the schema of a file called ``name`` as its columns are read by ``canonical_column``.

    Raises:
        BadInput: two columns have the same name.
    """
    import pyarrow as pa

    schema = arrow_types.canonical_schema(name, schema)
    sharegpt = columns.get(SHAREGPT, SHAREGPT)
    return pa.schema([(field.name, _message_type(field.type, field.name == sharegpt)) for field in schema])


def canonical_column(known: str, column: pa.Array) -> pa.Array:
    """Return a column that the format calls ``known`` with canonical types, and texts instead of lists of text parts.

    A content with parts that are not text is null, and is reported as an error of its row.

    Raises:
        ArrowInvalid: invalid UTF-8, or more than 2 GB of text.
    """
    return _convert(arrow_types.canonical(column), known == SHAREGPT)


def _message_type(kind: pa.DataType, is_sharegpt: bool) -> pa.DataType:
    import pyarrow as pa

    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return kind
    names = _field_names(kind.value_type, is_sharegpt)
    fields = [(names[field.name], pa.string() if _is_parts(field) else field.type) for field in kind.value_type]
    return pa.list_(pa.struct(fields))


def _convert(column: pa.Array, is_sharegpt: bool) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if _message_type(kind, is_sharegpt) == kind:
        return column
    from steps.data.row_messages import build_lists, lengths_of

    messages = column.flatten()
    parts = [
        _join_parts(part) if _is_parts(field) else part
        for field in kind.value_type
        for part in [pc.struct_field(messages, kind.value_type.get_field_index(field.name))]
    ]
    names = list(_field_names(kind.value_type, is_sharegpt).values())
    missing = messages.is_null() if messages.null_count else None
    return build_lists(
        lengths_of(column), pa.StructArray.from_arrays(parts, names=names, mask=missing), column.is_null()
    )


def _field_names(kind: pa.DataType, is_sharegpt: bool) -> dict[str, str]:
    """Return the names of a message's fields: the file's -> the format's."""
    existing = [field.name for field in kind]
    renamed = SHAREGPT_NAMES if is_sharegpt and not set(SHAREGPT_NAMES.values()) & set(existing) else {}
    return {name: renamed.get(name, name) for name in existing}


def _is_parts(field: pa.Field) -> bool:
    """Return True if a field is a content that consists of parts with type and text only."""
    import pyarrow as pa

    if field.name not in CONTENT_KEYS or not pa.types.is_list(field.type):
        return False
    part = field.type.value_type
    if not pa.types.is_struct(part):
        return False
    kinds = {entry.name: entry.type for entry in part if not pa.types.is_null(entry.type)}
    return kinds == {"type": pa.string(), "text": pa.string()}


def _join_parts(contents: pa.ListArray) -> pa.StringArray:
    """Return the texts of each content as one text; null if a part is not text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from steps.data.row_messages import build_lists, lengths_of

    parts = contents.flatten()
    is_text = pc.equal(pc.struct_field(parts, parts.type.get_field_index("type")), "text")
    texts = pc.if_else(
        is_text, pc.struct_field(parts, parts.type.get_field_index("text")), pa.scalar(None, pa.string())
    )
    # Joining gives null for a list with a null.
    return pc.binary_join(build_lists(lengths_of(contents), texts, contents.is_null()), "")
