"""Canonical columns of conversations: contents of text parts as text, and ShareGPT lists with OpenAI's names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps.data.formats import arrow_types
from steps.data.formats.value_types import CONTENT_KEYS
from steps.data.message_fields import CONTENT_ERROR, IDENTIFIERS

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"
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

    A content with parts that are not text is null, and its message has the reason in ``CONTENT_ERROR``.

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
    parts: list[pa.Array] = []
    errors = []
    for field in kind.value_type:
        part = pc.struct_field(messages, kind.value_type.get_field_index(field.name))
        if _is_parts(field):
            part, error = _read_parts(part)
            errors += [error] if error.null_count < len(error) else []
        parts.append(part)
    names = list(_field_names(kind.value_type, is_sharegpt).values())
    if errors:
        parts, names = [*parts, errors[0]], [*names, CONTENT_ERROR]
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
    """Return True if a field is a content that consists of parts, or of one: objects, of texts or images."""
    import pyarrow as pa

    if field.name not in CONTENT_KEYS:
        return False
    return pa.types.is_struct(field.type.value_type if pa.types.is_list(field.type) else field.type)


def _read_parts(contents: pa.ListArray | pa.StructArray) -> tuple[pa.StringArray, pa.StringArray]:
    """Return the texts of each content as one text, null if a part is not text, and the error of each such content."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from steps.data.row_messages import build_lists, lengths_of

    lengths, parts = contents.is_valid().cast(pa.int32()).to_numpy(zero_copy_only=False), contents.drop_null()
    if pa.types.is_list(contents.type):
        lengths, parts = lengths_of(contents), contents.flatten()
    kind = parts.type
    columns = {field.name: pc.struct_field(parts, idx) for idx, field in enumerate(kind)}
    text = columns.get(TEXT)
    text = text if text is not None and pa.types.is_string(text.type) else pa.nulls(len(parts), pa.string())
    part_type = columns.get("type")
    is_text = text.is_valid()
    if part_type is not None and pa.types.is_string(part_type.type):
        is_text = pc.and_(is_text, pc.fill_null(pc.equal(part_type, TEXT), True))
    others = [name for name in columns if name not in (TEXT, "type", *IDENTIFIERS)]
    for name in others:
        is_text = pc.and_(is_text, columns[name].is_null())
    # Joining gives null for a list with a null.
    texts = pc.if_else(is_text, text, pa.scalar(None, pa.string()))
    joined = pc.binary_join(build_lists(lengths, texts, contents.is_null()), "")
    reasons: list[str | None] = [None] * len(contents)
    if pc.all(is_text).as_py() is False:
        rows = np.repeat(np.arange(len(contents)), lengths)
        for index in pc.invert(is_text).to_numpy(zero_copy_only=False).nonzero()[0].tolist():
            reasons[rows[index]] = reasons[rows[index]] or _describe(parts[index].as_py(), others)
    return joined, pa.array(reasons, pa.string())


def _describe(part: Mapping[str, Any] | None, others: Sequence[str]) -> str:
    """Return why a part is not text."""
    part = part or {}
    found = [name for name in others if part.get(name) is not None]
    shown = f"the type {json.dumps(part['type'])}" if part.get("type") not in (None, TEXT) else ""
    shown = shown or (f"the field `{found[0]}`" if found else "no text")
    return f"`content` has a part with {shown}, but only text is trained on"
