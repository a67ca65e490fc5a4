"""Rows brought into another order on disk, for data that is larger than memory.

Each row comes with its place in the new order. As the rows come they are sorted by place in memory, as many as ``RUN``
bytes hold, and written to a spool file in pieces, one for each stretch of places ("bucket"). Then bucket by bucket is
read from all its pieces and put in order. At no time is more than a run or a bucket in memory, and the file is read
and written in pieces of some hundred kilobytes, not row by row.
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

RUN = 64 << 20
"""Bytes of rows that are sorted at once."""
BUCKET = 48 << 20
"""Bytes of rows that are put in order at once."""
PLACE = "place"


class RowBuffer:
    """Rows on disk, on the way to their places. ``close`` removes the file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.path, self.schema = path, schema
        self.taken = 0
        self.waiting: list[tuple[pa.RecordBatch, np.ndarray]] = []
        self.bytes_waiting = 0
        self.bucket_rows = 0
        self.pieces: dict[int, list[int]] = defaultdict(list)
        self.sizes: dict[int, int] = defaultdict(int)
        self.count = 0
        self.sink = pa.OSFile(str(path), "wb")
        self.writer: Any = pa.ipc.new_file(
            self.sink, schema.append(pa.field(PLACE, pa.uint32())), options=pa.ipc.IpcWriteOptions(compression="lz4")
        )

    def add(self, rows: pa.RecordBatch, places: np.ndarray) -> None:
        """Take rows; ``places`` holds the number of each in the order wanted."""
        self.waiting.append((rows, places))
        self.bytes_waiting += rows.nbytes
        if self.bytes_waiting >= RUN:
            self._write_run()

    def ordered(self) -> Iterator[pa.Table]:
        """All rows in the order wanted, in tables of about ``BUCKET`` bytes; ends the adding."""
        import pyarrow as pa

        self._write_run()
        self.writer.close()
        self.sink.close()
        # Not mapped: pages of a mapped file would count as memory of the process.
        with pa.OSFile(str(self.path)) as source:
            reader = pa.ipc.open_file(source)
            for bucket in sorted(self.pieces):
                first = bucket * self.bucket_rows
                # A bucket is larger than planned where wide rows are not spread evenly.
                step = math.ceil(self.bucket_rows / max(1, math.ceil(self.sizes[bucket] / (2 * BUCKET))))
                for start in range(first, min(first + self.bucket_rows, self.taken), step):
                    yield self._in_order(
                        reader, self.pieces[bucket], start, min(step, first + self.bucket_rows - start)
                    )

    def close(self) -> None:
        """Remove the file; may be called at any time."""
        self.sink.close()
        self.path.unlink(missing_ok=True)

    def _write_run(self) -> None:
        """Sort what waits by place, and write the rows of each bucket as a batch of their own."""
        import numpy as np
        import pyarrow as pa

        if not self.waiting:
            return
        rows, size = pa.concat_batches([rows for rows, _ in self.waiting]), self.bytes_waiting
        places = np.concatenate([places for _, places in self.waiting])
        self.waiting, self.bytes_waiting = [], 0
        if not self.bucket_rows:
            self.bucket_rows = max(1, int(BUCKET * len(rows) / size))
        self.taken += len(rows)
        order = np.argsort(places)
        places = places[order]
        rows = rows.take(pa.array(order)).append_column(PLACE, pa.array(places))
        buckets, starts = np.unique(places // self.bucket_rows, return_index=True)
        for bucket, start, end in zip(buckets.tolist(), starts, [*starts[1:], len(places)], strict=True):
            piece = rows.slice(start, end - start)
            self.pieces[bucket].append(self.count)
            self.sizes[bucket] += piece.nbytes
            self.writer.write_batch(piece)
            self.count += 1

    def _in_order(self, reader: Any, pieces: list[int], start: int, length: int) -> pa.Table:
        """Rows of the places from ``start`` on, in order."""
        import numpy as np
        import pyarrow as pa

        parts = []
        for number in pieces:
            piece = reader.get_batch(number)
            low, high = np.searchsorted(piece[PLACE].to_numpy(), [start, start + length])
            whole = high - low == len(piece)
            # A copy of a part, so that the rest of the piece does not stay in memory.
            parts.append(piece if whole else piece.take(pa.array(np.arange(low, high))))
        rows = pa.concat_batches(parts)
        order = np.argsort(rows[PLACE].to_numpy())
        return pa.Table.from_batches([rows.drop_columns([PLACE]).take(pa.array(order))])
