"""External shuffle: reorder rows on disk, for data larger than memory.

Each row has a position in the new order. Rows are collected into runs of ``RUN_BYTES``, sorted by position in memory,
and written to a buffer file in pieces, one for each range of positions ("bucket"). Then each bucket is read from all
its pieces and sorted. Memory holds at most one run or one bucket, and the file is read and written in pieces of some
hundred kilobytes, not row by row.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RUN_BYTES = 64 << 20
"""Size of a run."""
BUCKET_BYTES = 48 << 20
"""Target size of a bucket."""
PLACE = "place"


class RowBuffer:
    """Buffer file of rows that are being reordered; ``close`` removes it."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.path, self.schema = path, schema
        self.num_rows = 0
        self.pending: list[tuple[pa.RecordBatch, np.ndarray]] = []
        self.pending_bytes = 0
        self.bucket_rows = 0
        self.pieces: dict[int, list[int]] = defaultdict(list)
        self.sizes: dict[int, int] = defaultdict(int)
        self.num_pieces = 0
        self.sink = pa.OSFile(str(path), "wb")
        self.writer: Any = pa.ipc.new_file(
            self.sink, schema.append(pa.field(PLACE, pa.uint32())), options=pa.ipc.IpcWriteOptions(compression="lz4")
        )

    def add(self, rows: pa.RecordBatch, places: np.ndarray) -> None:
        """Add rows; ``places`` has the position of each in the new order."""
        self.pending.append((rows, places))
        self.pending_bytes += rows.nbytes
        if self.pending_bytes >= RUN_BYTES:
            self._write_run()

    def iter_sorted(self) -> Iterator[pa.Table]:
        """Yield all rows in the new order, in tables of about ``BUCKET_BYTES``; no rows can be added afterwards."""
        import pyarrow as pa

        self._write_run()
        self.writer.close()
        self.sink.close()
        # Not memory-mapped: mapped pages would count as memory of the process.
        with pa.OSFile(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            for bucket in sorted(self.pieces):
                first = bucket * self.bucket_rows
                # Uneven row widths make a bucket larger than planned.
                step = math.ceil(self.bucket_rows / max(1, math.ceil(self.sizes[bucket] / (2 * BUCKET_BYTES))))
                for start in range(first, min(first + self.bucket_rows, self.num_rows), step):
                    yield self._read_sorted(
                        reader, self.pieces[bucket], start, min(step, first + self.bucket_rows - start)
                    )

    def close(self) -> None:
        """Remove the file; safe to call at any time."""
        self.sink.close()
        self.path.unlink(missing_ok=True)

    def _write_run(self) -> None:
        """Sort the pending rows by position, and write the rows of each bucket as one batch."""
        import numpy as np
        import pyarrow as pa

        if not self.pending:
            return
        rows, size = pa.concat_batches([rows for rows, _ in self.pending]), self.pending_bytes
        places = np.concatenate([places for _, places in self.pending])
        self.pending, self.pending_bytes = [], 0
        if not self.bucket_rows:
            self.bucket_rows = max(1, int(BUCKET_BYTES * len(rows) / size))
        self.num_rows += len(rows)
        order = np.argsort(places)
        places = places[order]
        rows = rows.take(pa.array(order)).append_column(PLACE, pa.array(places))
        buckets, starts = np.unique(places // self.bucket_rows, return_index=True)
        for bucket, start, end in zip(buckets.tolist(), starts, [*starts[1:], len(places)], strict=True):
            piece = rows.slice(start, end - start)
            self.pieces[bucket].append(self.num_pieces)
            self.sizes[bucket] += piece.nbytes
            self.writer.write_batch(piece)
            self.num_pieces += 1

    def _read_sorted(self, reader: Any, pieces: list[int], start: int, length: int) -> pa.Table:
        """Return ``length`` rows from position ``start`` on, sorted."""
        import numpy as np
        import pyarrow as pa

        parts = []
        for number in pieces:
            piece = reader.get_batch(number)
            low, high = np.searchsorted(piece[PLACE].to_numpy(), [start, start + length])
            is_whole = high - low == len(piece)
            # Copy a part, to release the rest of the piece.
            parts.append(piece if is_whole else piece.take(pa.array(np.arange(low, high))))
        rows = pa.concat_batches(parts)
        order = np.argsort(rows[PLACE].to_numpy())
        return pa.Table.from_batches([rows.drop_columns([PLACE]).take(pa.array(order))])
