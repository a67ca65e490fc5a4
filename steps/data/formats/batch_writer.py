"""Writer of batches whose schema grows to one parquet file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data.formats import arrow_types
from steps.data.parquet_batches import read_batches
from steps.runtime import files

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_BYTES = 16 << 20
FIRST_BYTES = 32 << 20
"""Bytes that are collected before the first file is begun, as schemas change mostly at the start."""


class BatchWriter:
    """Writer of batches; ``finish`` writes ``path`` atomically, ``close`` removes what is left.

    Batches are written to a new part when the schema grows. If there are several parts, ``finish`` rewrites them with
    the last schema.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0
        self._limit = FIRST_BYTES
        self._parts: list[Path] = []
        self._writer: Any = None
        self._schema: pa.Schema | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Write a batch, whose schema has all columns and fields of the previous ones."""
        self.num_rows += len(batch)
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        if self._pending_bytes >= self._limit:
            self._flush()

    def finish(self) -> None:
        """Complete the file with the schema of the last batch."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._flush()
        schema = self._schema or pa.schema([])
        self._close_writer()
        if len(self._parts) == 1 and pq.read_schema(self._parts[0]).equals(schema):
            os.replace(self._parts[0], self.path)
            return
        with files.replacing(self.path) as sink, _open_writer(sink, schema) as writer:
            for part in self._parts:
                for batch in read_batches(part, pq.read_schema(part).names):
                    writer.write_batch(_conform(batch, schema), row_group_size=len(batch))

    def close(self) -> None:
        """Remove temporary files; safe to call at any time."""
        self._close_writer()
        for part in self._parts:
            part.unlink(missing_ok=True)

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._pending:
            return
        schema = self._schema = self._pending[-1].schema
        if self._writer is None or self._writer.schema != schema:
            self._close_writer()
            self._parts.append(self.path.with_name(f"{self.path.name}.part{len(self._parts)}"))
            self._writer = _open_writer(str(self._parts[-1]), schema)
        table = pa.Table.from_batches([_conform(batch, schema) for batch in self._pending])
        self._writer.write_table(table, row_group_size=max(1, len(table)))
        self._pending, self._pending_bytes, self._limit = [], 0, ROW_GROUP_BYTES

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _open_writer(sink: Any, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    # The file is read once: dictionaries and strong compression would only cost time.
    return pq.ParquetWriter(sink, schema, compression="lz4", use_dictionary=False, write_statistics=False)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    if batch.schema.equals(schema):
        return batch
    existing = batch.schema.names
    columns = [
        arrow_types.conform(batch.column(field.name), field.type)
        if field.name in existing
        else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
