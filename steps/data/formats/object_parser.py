"""Parser of consecutive JSON objects whose types are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def parse_objects(text: bytes, schema: pa.Schema) -> pa.RecordBatch | None:
    """Return objects as a batch of ``schema``; None if one is invalid, has other keys, or values of other types.

    The text begins with an object, as pyarrow crashes if it begins with ``null``.
    """
    import pyarrow as pa
    import pyarrow.json as pj

    try:
        table = pj.read_json(
            pa.BufferReader(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
    except (pa.ArrowException, ValueError):
        return None
    batches = table.combine_chunks().to_batches()
    return batches[0] if len(batches) == 1 else None
