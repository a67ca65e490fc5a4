"""The rows that the download step left, as the steps after it read them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

from steps.data.parquet_batches import batches
from steps.runtime import files
from steps.runtime.errors import BadInput

Message = dict[str, Any]
FIX = "run the download step before"
TEXT = "text"
"""Role of the one message that a row of mere text is read as; no chat template writes it."""


class Rows(Sequence[list[Message]]):
    """A column of a parquet file, of which no more than a part is in memory at any time.

    Going through is quick, and so is asking for rows in ascending order; anything else reads a row group a row.
    """

    def __init__(self, file: Path, column: str) -> None:
        import pyarrow.parquet as pq

        self.file, self.column = file, column
        metadata = pq.read_metadata(file)
        self._ends = list(accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))
        self._group: tuple[int, Any] = (-1, None)

    @cached_property
    def digest(self) -> str:
        """Of the whole file."""
        return files.sha256(self.file)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, number: int) -> list[Message]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[Message]]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        place = number + len(self) * (number < 0)
        if not 0 <= place < len(self):
            raise IndexError(number)
        group = bisect_right(self._ends, place)
        if self._group[0] != group:
            self._group = group, self._read(group)
        return self._row(self._group[1][place - (self._ends[group - 1] if group else 0)].as_py())

    def __iter__(self) -> Iterator[list[Message]]:
        for batch in batches(self.file, [self.column]):
            yield from map(self._row, batch.column(0).to_pylist())

    def _read(self, group: int) -> Any:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.file, pre_buffer=False) as parquet:
            return parquet.read_row_group(group, columns=[self.column]).column(0)

    def _row(self, value: Any) -> list[Message]:
        return [{"role": TEXT, "content": value}] if self.column == "text" else value


def dataset_folder(given: Any) -> Path:
    """Where the settings of a step say that the rows are."""
    return Path(given.dataset or given.work / "dataset")


def read_messages(file: Path) -> Rows:
    """Messages of each row of a file of the download step; a row of mere text is one message of the role ``TEXT``.

    Raises:
        BadInput: the file is missing, is none, or has no rows.
    """
    rows = _column(file, "messages", "text")
    if rows is None:
        raise BadInput(f"{file} can't be read: it has neither messages nor text", FIX)
    if not rows:
        raise BadInput(f"{file} has no rows", "give data with more rows, or a smaller share to evaluate on")
    return rows


def read_rejected(file: Path) -> Sequence[list[Message]]:
    """Of each pair of answers the rejected one: one message, instead of the row's last. Of other data there are none.

    Raises:
        BadInput: the file is missing or is none.
    """
    return _column(file, "rejected") or ()


def _column(file: Path, *names: str) -> Rows | None:
    """The first of the columns that is there."""
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    if not file.is_file():
        raise BadInput(f"there is no {file}", FIX)
    try:
        there = pq.read_schema(file).names
        return next((Rows(file, name) for name in names if name in there), None)
    except (ArrowException, OSError) as error:
        raise BadInput(f"{file} can't be read: {error}", FIX) from None
