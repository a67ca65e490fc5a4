"""Reader of Arrow IPC files and streams (Feather version 2).

A record batch that is compressed is decompressed as a whole, so its size is read from the message before (Arrow,
``format/Message.fbs``). Others are mapped, and read in slices.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from steps.data.formats import arrow_types
from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BATCH_BYTES = 256 << 20
"""Maximum size of a decompressed record batch."""
SLICE_BYTES = 8 << 20
FILE_MAGIC = b"ARROW1"


def read_arrow(path: Path, used: Collection[str], name: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of an uncompressed Arrow file; columns that are not in ``used`` are null.

    Raises:
        BadInput: a batch exceeds the limit, or two columns have the same name.
        pyarrow.ArrowException, OSError, ValueError: the file is damaged.
    """
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(FILE_MAGIC)) == FILE_MAGIC
        source.seek(8 if is_file else 0)
        _check_sizes(source, name)
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        schema = reader.schema
        arrow_types.check_names(name, schema.names)
        yield _only_used(pa.RecordBatch.from_pylist([], schema=schema), used)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            batch.validate(full=True)
            step = max(1, int(len(batch) * SLICE_BYTES / max(batch.nbytes, 1)))
            for start in range(0, len(batch), step):
                yield _only_used(batch.slice(start, step), used)


def _only_used(batch: pa.RecordBatch, used: Collection[str]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [
        arrow_types.canonical(column) if name in used else pa.nulls(len(batch))
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _check_sizes(source: pa.NativeFile, name: str) -> None:
    """Refuse compressed batches that would exceed the limit."""
    import pyarrow as pa

    reader = pa.ipc.MessageReader.open_stream(source)
    number = 0
    while True:
        try:
            message = reader.read_next_message()
        except (StopIteration, EOFError, pa.ArrowInvalid):
            return  # The end, or damage that reading reports.
        size = _decompressed_size(message)
        if size > MAX_BATCH_BYTES:
            raise BadInput(
                f"{name}: record batch {number} has {size / 1e6:.0f} MB when decompressed (limit "
                f"{MAX_BATCH_BYTES >> 20} MB)",
                "write it with smaller batches: to_feather(PATH, chunksize=10000), or as parquet",
            )
        number += message.type == "record batch"


def _decompressed_size(message: pa.Message) -> int:
    """Return the decompressed size of a message's buffers; 0 if they are not compressed."""
    if message.body is None or not len(message.body):
        return 0
    try:
        batch = _Table.root(message.metadata.to_pybytes()).child(2)
        if message.type == "dictionary":
            batch = batch.child(1)
        if not batch.has(3):
            return 0
        total = 0
        for offset, length in batch.buffers(2):
            if length > 8:
                total += max(0, struct.unpack("<q", message.body[offset : offset + 8].to_pybytes())[0])
        return total
    except (struct.error, IndexError, ValueError):
        return 0


class _Table:
    """A table of a flatbuffer: its fields by number."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._fields = position - struct.unpack_from("<i", data, position)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        """Return the outermost table."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def has(self, number: int) -> bool:
        """Return True if a field is set."""
        return bool(self._offset(number))

    def child(self, number: int) -> _Table:
        """Return the table in a field."""
        return _Table(self._data, self._target(number))

    def buffers(self, number: int) -> Iterator[tuple[int, int]]:
        """Yield offset and length of each buffer in a field."""
        start = self._target(number)
        for idx in range(struct.unpack_from("<I", self._data, start)[0]):
            yield struct.unpack_from("<qq", self._data, start + 4 + 16 * idx)

    def _offset(self, number: int) -> int:
        if 4 + 2 * number >= struct.unpack_from("<H", self._data, self._fields)[0]:
            return 0
        return int(struct.unpack_from("<H", self._data, self._fields + 4 + 2 * number)[0])

    def _target(self, number: int) -> int:
        position = self._position + self._offset(number)
        return int(position + struct.unpack_from("<I", self._data, position)[0])
