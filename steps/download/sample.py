"""Start of remote files, for a preview: the first rows of parquet files, the first lines of JSON Lines and CSV files.

Files of other formats, and of servers without ranges, are downloaded whole.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from steps.data.fetch import find_targets
from steps.data.formats import file_names
from steps.data.locations.remote_file import RemoteFile
from steps.data.transfer import RETRY, DownloadedFile, Target
from steps.runtime import files
from steps.runtime.retry import Sleep, retry_call

MAX_FILES = 2
"""Files of each location."""
MAX_ROWS = 2000
MAX_BYTES = 4 << 20
MAX_ROW_GROUP_BYTES = 1 << 30
"""Decoded size of a row group; files with larger ones are downloaded, and checked by their reader."""
LINE_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv")


def fetch_samples(
    urls: Sequence[str],
    folder: Path,
    *,
    allow_private_hosts: bool = False,
    pattern: str = "",
    wait: Sleep | None = None,
) -> list[DownloadedFile]:
    """Write the start of some files of every location into ``folder``.

    Raises:
        BadInput, StepError: as ``fetch.fetch_all``.
    """
    with find_targets(
        urls, folder, allow_private_hosts=allow_private_hosts, pattern=pattern, max_files=MAX_FILES, wait=wait
    ) as found:
        sampled = [retry_call(partial(_sample, target), RETRY, sleep=wait or time.sleep) for target in found.targets]
        whole = found.download([target for target, file in zip(found.targets, sampled, strict=True) if not file])
    remaining = iter(whole)
    return [file or next(remaining) for file in sampled]


def _sample(target: Target) -> DownloadedFile | None:
    """Write the start of a file; None if the whole is needed."""
    name = target.shown.partition("?")[0].lower()
    if file_names.parse_name(name) == ("parquet", ""):
        return _sample_parquet(target)
    return _sample_lines(target) if name.endswith(LINE_SUFFIXES) else None


def _sample_lines(target: Target) -> DownloadedFile | None:
    content, size = target.file.read_range(0, MAX_BYTES)
    if len(content) == MAX_BYTES and size != MAX_BYTES:
        end = content.rfind(b"\n") + 1
        while end and content.count(b'"', 0, end) % 2 and not target.shown.lower().endswith(("jsonl", "ndjson")):
            end = content.rfind(b"\n", 0, end - 1) + 1  # a line break inside a quoted cell
        if not end:
            return None
        content = content[:end]
        print(f"{target.shown}: read the first {len(content) / 1e6:.1f} MB", flush=True)
    target.path.write_bytes(content)
    return _describe(target)


def _sample_parquet(target: Target) -> DownloadedFile | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _, size = target.file.read_range(0, 4)
    if not size:
        return None
    source = io.BufferedReader(_RangeFile(target.file, size), 1 << 18)
    try:
        file = pq.ParquetFile(pa.PythonFile(source, mode="r"), buffer_size=1 << 18, pre_buffer=False)
        metadata = file.metadata
        groups = [metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)]
        if max(groups, default=0) > MAX_ROW_GROUP_BYTES:
            return None
        with pq.ParquetWriter(target.path, file.schema_arrow) as writer:
            rows = 0
            for batch in file.iter_batches(batch_size=500):
                writer.write_batch(batch.slice(0, MAX_ROWS - rows))
                rows += batch.num_rows
                if rows >= MAX_ROWS:
                    break
    except (pa.ArrowException, OSError, ValueError):
        target.path.unlink(missing_ok=True)
        return None  # The reader of the whole file describes what is wrong.
    if rows < metadata.num_rows:
        print(f"{target.shown}: read the first {min(rows, MAX_ROWS)} of {metadata.num_rows} rows", flush=True)
    return _describe(target)


def _describe(target: Target) -> DownloadedFile:
    return DownloadedFile(target.shown, target.path, target.path.stat().st_size, files.sha256(target.path))


class _RangeFile(io.RawIOBase):
    """Random access to a remote file."""

    def __init__(self, file: RemoteFile, size: int) -> None:
        self._file, self._size, self._position = file, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content, size = self._file.read_range(self._position, end)
        if size != self._size:
            raise OSError("the file has changed on the server")
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)
