"""Bound of the memory that decoding a row group of parquet needs, before it is decoded.

A parquet file of 1 KB can contain rows of gigabytes: a dictionary stores a text once, however often it is used, and
compression shortens repetitions by thousands. The footer counts a dictionary once, and can state wrong sizes, which
the headers of pages cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.data.parquet_pages import DICTIONARY_PAGE, Page, read_pages

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_ROW_BYTES = 256 << 20
"""Maximum decoded size of a row."""


class RowTooLarge(ValueError):
    """A row needs too much memory when decoded."""


def bound_row_bytes(path: Path, parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> int:
    """Return an upper bound of the decoded bytes of a row of a row group; 0 if the footer excludes large rows.

    Only texts of dictionaries are counted: those of other pages are bounded by the size of the page.

    Raises:
        RowTooLarge: a row needs more than ``MAX_ROW_BYTES``; names row group and size.
        ValueError, pyarrow.ArrowException, OSError: the file is damaged.
    """
    bound = 0
    for chunk in _text_chunks(parquet, group, columns):
        pages = _pages(path, chunk)
        size, largest = sum(page.uncompressed for page in pages), max((page.uncompressed for page in pages), default=0)
        if largest > MAX_ROW_BYTES:
            raise _too_large(group, largest, f"{chunk.path_in_schema} has a page of this size")
        has_dictionary = any(page.kind == DICTIONARY_PAGE for page in pages)
        values = max(chunk.num_values, sum(page.values for page in pages))
        if has_dictionary and size * values > MAX_ROW_BYTES:
            longest = _longest_entry(path, group, chunk.path_in_schema)
            if longest * values > MAX_ROW_BYTES:
                most = longest * _most_values(parquet, group, chunk)
                if most > MAX_ROW_BYTES:
                    most = _largest_row(path, group, chunk.path_in_schema)
                if most > MAX_ROW_BYTES:
                    raise _too_large(group, most, f"{chunk.path_in_schema} repeats long texts")
                bound += most
    return bound


def _pages(path: Path, chunk: Any) -> list[Page]:
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset is not None:
        start = min(start, chunk.dictionary_page_offset)
    with path.open("rb") as file:
        return list(read_pages(file, start, chunk.total_compressed_size))


def _text_chunks(parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[Any]:
    if not parquet.metadata.row_group(group).num_rows:
        return
    for number, column in enumerate(parquet.schema):
        if column.physical_type == "BYTE_ARRAY" and any(f"{column.path}.".startswith(f"{c}.") for c in columns):
            yield _chunk(parquet, group, number)


def _chunk(parquet: pq.ParquetFile, group: int, number: int) -> Any:
    """Return the metadata of a column chunk.

    ``RowGroupMetaData.column`` ends the process (SIGABRT) if this metadata is damaged: pyarrow 26 does not catch the
    exception of C++. A reader of no rows, which decodes nothing, interprets the same metadata and raises an error.
    """
    list(parquet.reader.iter_batches(0, row_groups=[group], column_indices=[number], use_threads=False))
    return parquet.metadata.row_group(group).column(number)


def _longest_entry(path: Path, group: int, leaf: str) -> int:
    """Return the bytes of the longest text of a dictionary, which is read with the first row."""
    import pyarrow.compute as pc

    for values, _ in _encoded(path, group, leaf, rows=1):
        return int(pc.max(pc.binary_length(values.dictionary)).as_py() or 0)
    return 0


def _largest_row(path: Path, group: int, leaf: str) -> int:
    """Return the decoded bytes of the largest row, by the lengths of the texts that it refers to."""
    import numpy as np
    import pyarrow.compute as pc

    largest = 0
    for values, offsets in _encoded(path, group, leaf, rows=64):
        lengths = pc.take(pc.binary_length(values.dictionary), values.indices)
        ends = np.concatenate(
            [[0], np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), dtype=np.int64)]
        )
        largest = max(largest, int(np.diff(ends[offsets]).max(initial=0)))
    return largest


def _encoded(path: Path, group: int, leaf: str, rows: int) -> Iterator[tuple[pa.DictionaryArray, np.ndarray]]:
    """Yield the values of a column as indices into its dictionary, and the offsets of rows in them."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, read_dictionary=[leaf], buffer_size=1 << 16, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=[leaf]):
            values, offsets = batch.column(0), np.arange(len(batch) + 1)
            while not pa.types.is_dictionary(values.type):
                if pa.types.is_struct(values.type):
                    values = values.field(0)
                elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                    offsets = values.offsets.to_numpy()[offsets]
                    values = values.values
                else:
                    return  # its pages are not of a dictionary, or of a type that is refused later
            yield values, offsets


def _most_values(parquet: pq.ParquetFile, group: int, chunk: Any) -> int:
    """Return the largest number of values of a row; all of the group's if no shorter column has as many."""
    import pyarrow.compute as pc

    if parquet.metadata.row_group(group).num_rows == chunk.num_values:
        return 1
    column = chunk.path_in_schema.partition(".")[0]
    siblings = [
        _chunk(parquet, group, number)
        for number, other in enumerate(parquet.schema)
        if other.path.startswith(f"{column}.") and other.path != chunk.path_in_schema
    ]
    small = [
        other
        for other in siblings
        if other.num_values == chunk.num_values and other.total_uncompressed_size < MAX_ROW_BYTES // 64
    ]
    if not small:
        return int(chunk.num_values)
    leaf = min(small, key=lambda other: other.total_uncompressed_size).path_in_schema
    most = 1
    for batch in parquet.iter_batches(1024, row_groups=[group], columns=[leaf]):
        values = batch.column(0)
        if not hasattr(values, "values"):
            return int(chunk.num_values)
        most = max(most, pc.max(pc.list_value_length(values)).as_py() or 1)
    return most


def _too_large(group: int, size: int, detail: str) -> RowTooLarge:
    limit = f"the limit is {MAX_ROW_BYTES >> 20} MB"
    message = f"row group {group} needs up to {size / 1e6:,.0f} MB a row when decoded ({detail}); {limit}"
    return RowTooLarge(message)
