"""Canonical Arrow types: the few that rows are read as, for the many that files contain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa


def canonical_schema(name: str, schema: pa.Schema) -> pa.Schema:
    """Return the schema of a file called ``name`` with canonical types.

    Raises:
        BadInput: two columns have the same name.
    """
    import pyarrow as pa

    check_names(name, schema.names)
    return pa.schema([(field.name, canonical_type(field.type)) for field in schema])


def check_names(name: str, columns: Iterable[str]) -> None:
    """Refuse a file with two columns of the same name.

    Raises:
        BadInput: there are such columns.
    """
    if repeated := [f"`{column}`" for column, count in Counter(columns).items() if count > 1]:
        raise BadInput(f"{name}: several columns are called {', '.join(repeated)}", "rename or remove all but one")


def canonical_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that values of ``kind`` are read as: texts, lists and structs without variants."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return canonical_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return canonical_type(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if _is_any_list(kind):
        return pa.list_(canonical_type(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([(field.name, canonical_type(field.type)) for field in kind])
    return kind


def canonical(column: pa.Array) -> pa.Array:
    """Return an array with the same values and the canonical type.

    Raises:
        ArrowInvalid: invalid UTF-8, or more than 2 GB of text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, types = column.type, pa.types
    if kind == canonical_type(kind):
        return column
    if isinstance(kind, pa.BaseExtensionType):
        return canonical(column.storage)
    if types.is_dictionary(kind):
        return canonical(column.dictionary_decode())
    if types.is_run_end_encoded(kind):
        return canonical(pc.run_end_decode(column))
    if _is_any_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(lengths.cast(pa.int64()))])
        return pa.ListArray.from_arrays(
            offsets.cast(pa.int32()),
            canonical(column.flatten()),
            mask=column.is_null() if column.null_count else None,
        )
    if types.is_struct(kind):
        missing = column.is_null()
        parts = [canonical(pc.struct_field(column, idx)) for idx in range(kind.num_fields)]
        fields = [pa.field(field.name, part.type) for field, part in zip(kind, parts, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=missing if column.null_count else None)
    return pc.cast(column, canonical_type(kind))


def conform(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return a canonical array as one of a wider type: more fields, or a type instead of null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if pa.types.is_struct(kind) and pa.types.is_struct(column.type):
        parts = [
            conform(pc.struct_field(column, idx), field.type) if idx >= 0 else pa.nulls(len(column), field.type)
            for field in kind
            for idx in [column.type.get_field_index(field.name)]
        ]
        missing = column.is_null() if column.null_count else None
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=missing)
    if pa.types.is_list(kind) and pa.types.is_list(column.type):
        offsets = column.offsets.cast(pa.int64())
        offsets = pc.subtract(offsets, offsets[0]).cast(pa.int32())
        start, end = column.offsets[0].as_py(), column.offsets[-1].as_py()
        values = conform(column.values.slice(start, end - start), kind.value_type)
        return pa.ListArray.from_arrays(
            offsets, values, type=kind, mask=column.is_null() if column.null_count else None
        )
    if pa.types.is_list(kind) and pa.types.is_string(column.type):
        return _as_parts(column, kind)
    if pa.types.is_string(kind) and not pa.types.is_primitive(column.type):
        import json

        texts = [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    return pc.cast(column, kind)


def _as_parts(texts: pa.StringArray, kind: pa.DataType) -> pa.ListArray:
    """Return texts of messages as lists with one part of the type text."""
    import numpy as np
    import pyarrow as pa

    present = texts.drop_null()
    part = pa.StructArray.from_arrays([pa.repeat("text", len(present)), present], names=["type", "text"])
    sizes = texts.is_valid().to_numpy(zero_copy_only=False).astype(np.int32)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]), pa.int32())
    missing = texts.is_null() if texts.null_count else None
    return pa.ListArray.from_arrays(offsets, conform(part, kind.value_type), type=kind, mask=missing)


def _is_any_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_list,
            types.is_large_list,
            types.is_fixed_size_list,
            types.is_list_view,
            types.is_large_list_view,
        )
    )
