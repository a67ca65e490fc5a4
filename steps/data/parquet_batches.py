"""Reader of parquet files in batches of bounded size, independent of the width of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from steps.data import decoded_size

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

T = TypeVar("T")

MAX_BATCH_BYTES = 8 << 20
"""Bytes of a batch."""
DECODE_ROWS = 64
"""Rows decoded at once: few, because dictionaries hide the width of rows."""
PAGE_BUFFER = 1 << 20


def read_batches(path: Path, columns: Sequence[str], batch_bytes: int = MAX_BATCH_BYTES) -> Iterator[pa.RecordBatch]:
    """Read columns in batches of about ``batch_bytes`` bytes, with at least one row.

    Raises:
        RowTooLarge: a row is too large when decoded.
        pyarrow.ArrowException, OSError: the file is damaged or not readable.
    """
    import pyarrow.parquet as pq

    # Stream pages: by default whole column chunks, which can be all of the file, are prefetched.
    with pq.ParquetFile(path, buffer_size=PAGE_BUFFER, pre_buffer=False) as parquet:
        pending: list[pa.RecordBatch] = []
        size, widest = 0, _max_row_bytes(parquet)
        for group in range(parquet.num_row_groups):
            largest = decoded_size.bound_row_bytes(path, parquet, group, columns)
            rows = max(1, min(DECODE_ROWS, int(batch_bytes / max(widest, largest))))
            for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(columns)):
                widest = max(widest, batch.nbytes / max(len(batch), 1))
                pending.append(batch)
                size += batch.nbytes
                if size >= batch_bytes:
                    yield from _split_batch(pending, size, batch_bytes)
                    pending, size = [], 0
        if pending:
            yield from _split_batch(pending, size, batch_bytes)


def _max_row_bytes(parquet: pq.ParquetFile) -> float:
    """Return the maximum bytes per row by the footer, which counts repeated texts once; at least 1."""
    groups = (parquet.metadata.row_group(number) for number in range(parquet.num_row_groups))
    sizes = (group.total_byte_size / group.num_rows for group in groups if group.num_rows)
    return max(1.0, max(sizes, default=1.0))


def _split_batch(pending: list[pa.RecordBatch], size: int, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows as one batch; as several if rows are wider than expected."""
    import pyarrow as pa

    whole = pending[0] if len(pending) == 1 else pa.concat_batches(pending)
    step = len(whole) if size < 2 * batch_bytes else max(1, int(len(whole) * batch_bytes / size))
    for start in range(0, len(whole), step):
        yield whole.slice(start, step)


def prefetch(items: Iterable[T]) -> Iterator[T]:
    """Compute the next of ``items`` in a thread while the caller uses the previous one."""
    source, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, source, end)
        while (item := upcoming.result()) is not end:
            upcoming = thread.submit(next, source, end)
            yield item  # type: ignore[misc]
