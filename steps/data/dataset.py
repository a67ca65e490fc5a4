"""Reader of the rows that the download step wrote."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

from steps.data.message_fields import merge_fields
from steps.data.parquet_batches import read_batches
from steps.runtime import files
from steps.runtime.errors import BadInput

Message = dict[str, Any]
FIX = "run the download step first"
TEXT = "text"
"""Role of the single message of a text row; not rendered by chat templates."""


class Rows(Sequence[list[Message]]):
    """A column of a parquet file, read lazily.

    Iteration and access in ascending order are fast; random access reads a row group per row.
    """

    def __init__(self, file: Path, column: str) -> None:
        import pyarrow.parquet as pq

        self.file, self.column = file, column
        metadata = pq.read_metadata(file)
        self._ends = list(accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))
        self._group: tuple[int, Any] = (-1, None)
        kind = pq.read_schema(file).field(column).type
        self._has_fields = column != "text" and kind.value_type.get_field_index("fields") >= 0

    @cached_property
    def digest(self) -> str:
        """Digest of the whole file."""
        return files.sha256(self.file)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, number: int) -> list[Message]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[Message]]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self[idx] for idx in range(*number.indices(len(self)))]
        idx = number + len(self) * (number < 0)
        if not 0 <= idx < len(self):
            raise IndexError(number)
        group = bisect_right(self._ends, idx)
        if self._group[0] != group:
            self._group = group, self._read(group)
        return self._row(self._group[1][idx - (self._ends[group - 1] if group else 0)].as_py())

    def __iter__(self) -> Iterator[list[Message]]:
        for batch in read_batches(self.file, [self.column]):
            yield from map(self._row, batch.column(0).to_pylist())

    def _read(self, group: int) -> Any:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.file, pre_buffer=False) as parquet:
            return parquet.read_row_group(group, columns=[self.column]).column(0)

    def _row(self, value: Any) -> list[Message]:
        if self.column == "text":
            return [{"role": TEXT, "content": value}]
        return merge_fields(value) if self._has_fields else value


def dataset_folder(settings: Any) -> Path:
    """Return the dataset directory in the settings of a step."""
    return Path(settings.dataset or settings.work / "dataset")


def read_messages(file: Path) -> Rows:
    """Return the messages of each row of a dataset file; a text row is one message of the role ``TEXT``.

    Raises:
        BadInput: the file is missing, is invalid, or has no rows.
    """
    rows = _read_column(file, "messages", "text")
    if rows is None:
        raise BadInput(f"{file} is not a dataset: columns messages and text not found", FIX)
    if not rows:
        raise BadInput(f"{file} has no rows", "use data with more rows, or a smaller eval split")
    return rows


def read_rejected(file: Path) -> Sequence[list[Message]]:
    """Return the rejected answer of each pair, which replaces the row's last message; empty for other data.

    Raises:
        BadInput: the file is missing or invalid.
    """
    return _read_column(file, "rejected") or ()


def _read_column(file: Path, *names: str) -> Rows | None:
    """Return the first of the columns that exists."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    if not file.is_file():
        raise BadInput(f"{file} not found", FIX)
    try:
        existing = pq.read_schema(file).names
        return next((Rows(file, name) for name in names if name in existing), None)
    except (ArrowException, OSError) as error:
        raise BadInput(f"cannot read {file}: {error}", FIX) from None
