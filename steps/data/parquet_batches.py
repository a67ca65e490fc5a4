"""Parquet files in batches of a bounded size, however wide their rows are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

T = TypeVar("T")

MAX_BYTES = 8 << 20
"""Bytes of a batch."""
ROWS_READ = 64
"""Rows that are decoded at once: few, because a dictionary may hide how wide they are."""
PAGE_BUFFER = 1 << 20


def batches(path: Path, columns: Sequence[str], at_once: int = MAX_BYTES) -> Iterator[pa.RecordBatch]:
    """Read columns in batches of about ``at_once`` bytes, or of one row where that is larger.

    Raises:
        pyarrow.ArrowException, OSError: the file is damaged or can't be read.
    """
    import pyarrow.parquet as pq

    # Streams of pages: otherwise whole column chunks, which may be all of the file, are read ahead.
    with pq.ParquetFile(path, buffer_size=PAGE_BUFFER, pre_buffer=False) as parquet:
        waiting: list[pa.RecordBatch] = []
        size, widest = 0, _widest(parquet)
        for group in range(parquet.num_row_groups):
            rows = max(1, min(ROWS_READ, int(at_once / widest)))
            for batch in parquet.iter_batches(rows, row_groups=[group], columns=list(columns)):
                widest = max(widest, batch.nbytes / max(len(batch), 1))
                waiting.append(batch)
                size += batch.nbytes
                if size >= at_once:
                    yield from _parts(waiting, size, at_once)
                    waiting, size = [], 0
        if waiting:
            yield from _parts(waiting, size, at_once)


def _widest(parquet: pq.ParquetFile) -> float:
    """Bytes of a row where rows are widest, as far as the footer tells: of texts that repeat it counts one."""
    groups = (parquet.metadata.row_group(number) for number in range(parquet.num_row_groups))
    return max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0) or 1.0


def _parts(waiting: list[pa.RecordBatch], size: int, at_once: int) -> Iterator[pa.RecordBatch]:
    """What was read, as one batch; as several where rows were wider than could be known."""
    import pyarrow as pa

    whole = waiting[0] if len(waiting) == 1 else pa.concat_batches(waiting)
    step = len(whole) if size < 2 * at_once else max(1, int(len(whole) * at_once / size))
    for start in range(0, len(whole), step):
        yield whole.slice(start, step)


def ahead(made: Iterable[T]) -> Iterator[T]:
    """Make the next of ``made`` in a thread while the one before is used."""
    source, end = iter(made), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, end)
        while (one := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield one  # type: ignore[misc]
