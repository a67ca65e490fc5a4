"""Reader of CSV and TSV. All cells are text, as written: "01", "NA" and empty cells too."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from steps.data.formats import arrow_types, compressed
from steps.data.formats.file_errors import MAX_ERRORS, MAX_ROW_BYTES, FileErrors, row_too_large
from steps.data.formats.text_stream import open_utf8

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = (",", "\t", ";", "|")
HEAD_BYTES = 256 << 10
SAMPLE_ROWS = 20
csv.field_size_limit(2 * MAX_ROW_BYTES)


def read_csv(path: Path, used: Collection[str], errors: FileErrors) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a CSV file; columns that are not in ``used`` are null.

    Errors of rows are added to ``errors``; the other rows are read nevertheless.

    Raises:
        BadInput: the header repeats a column.
        TooManyErrors: reading stopped.
        OSError, EOFError, ValueError: the compressed data or the encoding is damaged.
    """
    import pyarrow as pa
    import pyarrow.csv as pc

    with compressed.open_stream(path) as stream:
        text = _Counter(open_utf8(stream), is_strict=True)
        head = text.peek(HEAD_BYTES)
        skipped = 1 if head[:5].lower().startswith(b"sep=") else 0
        delimiter = find_delimiter(head, errors.name, used)
        names = _read_header(head, delimiter, skipped)
        if not names:
            errors.add(1, "the header is missing", "add a first line with the names of the columns")
            return
        arrow_types.check_names(errors.name, names)
        invalid: list[Any] = []

        def skip(row: Any) -> str:
            invalid.append(row)
            return "skip" if len(invalid) < MAX_ERRORS else "error"

        existing = [name for name in names if name in used]
        schema = pa.schema([(name, pa.string() if name in used else pa.null()) for name in names])
        yield pa.RecordBatch.from_pylist([], schema=schema)
        try:
            reader = pc.open_csv(
                pa.PythonFile(text, mode="r"),
                # Threads would lose the numbers of rows.
                read_options=pc.ReadOptions(use_threads=False, block_size=MAX_ROW_BYTES, skip_rows=skipped),
                parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
                convert_options=pc.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    strings_can_be_null=False,
                    include_columns=existing or names[:1],
                ),
            )
            for batch in reader:
                columns = [batch.column(name) if name in existing else pa.nulls(len(batch)) for name in names]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            if "Empty CSV file" in str(error):
                return  # The header has no line break after it.
            _describe(path, delimiter, str(error), invalid, errors)
            return
    if invalid or text.quotes % 2:
        _describe(path, delimiter, "", invalid, errors)


def find_delimiter(head: bytes, name: str, used: Collection[str]) -> str:
    """Return the character between the cells: that which splits the first rows into equal numbers of known columns."""
    lines = head.decode("utf-8", errors="replace")
    if lines[:4].lower() == "sep=" and lines[4:5]:
        return lines[4]
    if name.partition("?")[0].lower().removesuffix(".gz").endswith(".tsv"):
        return "\t"
    return max(DELIMITERS, key=lambda delimiter: _score(lines, delimiter, used))


def find_lines(path: Path, name: str, used: Collection[str], numbers: Collection[int]) -> dict[int, int]:
    """Return the line at which each of the rows ``numbers`` begins; rows are counted from 0, lines from 1."""
    found: dict[int, int] = {}
    with compressed.open_stream(path) as stream:
        text = _Counter(open_utf8(stream))
        records = _Records(text, find_delimiter(text.peek(HEAD_BYTES), name, used))
        for number, (line, _) in enumerate(records, -1):
            if number in numbers:
                found[number] = line
            if number >= max(numbers, default=-1):
                break
    return found


def _score(lines: str, delimiter: str, used: Collection[str]) -> tuple[int, int]:
    rows = []
    try:
        for row in csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter):
            rows.append(row)
            if len(rows) > SAMPLE_ROWS:
                break
    except csv.Error:
        pass
    if not rows:
        return 0, 0
    is_even = all(len(row) == len(rows[0]) for row in rows[:-1] if row)
    return len({name.strip() for name in rows[0]} & set(used)), len(rows[0]) if is_even else 1


def _read_header(head: bytes, delimiter: str, skipped: int) -> list[str]:
    lines = io.StringIO(head.decode("utf-8", errors="replace"), newline="")
    for _ in range(skipped):
        lines.readline()
    try:
        return next((row for row in csv.reader(lines, delimiter=delimiter) if row), [])
    except csv.Error:
        return []


def _describe(path: Path, delimiter: str, message: str, invalid: Sequence[Any], errors: FileErrors) -> None:
    """Add the errors of invalid rows with their lines, by reading the file once more."""
    known = {row.number: row for row in invalid if row.number is not None}
    count, number, line = len(errors.lines), 0, 1
    with compressed.open_stream(path) as stream:
        text = _Counter(open_utf8(stream))
        records = _Records(text, delimiter)
        try:
            for number, (line, row) in enumerate(records, 1):
                if number in known:
                    cells = known[number]
                    fix = "quote cells that contain the delimiter, quotes or line breaks"
                    found = f"{cells.actual_columns} cells, but the header has {cells.expected_columns} columns"
                    errors.add(line, found, fix)
                if records.is_unclosed:
                    errors.add(line, "the quote that begins in this row is not closed", 'close it, or write "" for "')
                elif row is not None and sum(map(len, row)) > MAX_ROW_BYTES:
                    errors.add(line, *row_too_large())
        except UnicodeDecodeError as error:
            shown = f"byte {error.object[error.start]:#04x} is not UTF-8"
            errors.add(records.line, shown, "save the file as UTF-8; Excel calls it CSV UTF-8")
        except csv.Error as error:
            too_large = "field larger" in str(error)
            errors.add(line + 1, *(row_too_large() if too_large else (str(error), "write the row again")))
    if message and len(errors.lines) == count:
        if "straddling" in message:
            errors.add(None, *row_too_large())
        else:
            errors.add(None, message.partition("\n")[0][:200], "write the file again")


class _Records:
    """Rows of a CSV file, with the line at which each begins; read by Python, to find the lines of errors."""

    def __init__(self, stream: _Counter, delimiter: str) -> None:
        self._stream, self._delimiter = stream, delimiter
        self.line = 0
        self.is_unclosed = False
        self._is_done = False

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        reader, first = csv.reader(self._decoded(), delimiter=self._delimiter), 1
        for row in reader:
            if row:
                self.is_unclosed = self._is_done
                yield first, row
            first = reader.line_num + 1

    def _decoded(self) -> Iterator[str]:
        text = io.BufferedReader(self._stream)
        while line := text.readline(2 * MAX_ROW_BYTES):
            self.line += 1
            yield line.decode()
        self._is_done = True


class _Counter(io.RawIOBase):
    """A stream that counts its quotes, as an odd number can mean a quote that is never closed.

    With ``is_strict`` reading raises UnicodeDecodeError where it is not UTF-8.
    """

    def __init__(self, stream: BinaryIO, *, is_strict: bool = False) -> None:
        self._stream, self._head = stream, b""
        self._decoder = codecs.getincrementaldecoder("utf-8")() if is_strict else None
        self._is_ascii = True
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        """Return the first bytes, which are read again later."""
        while len(self._head) < size and (part := self._stream.read(size - len(self._head))):
            self._head += part
        return self._head

    def read(self, size: int = -1) -> bytes:
        content = self._head[:size] if size >= 0 else self._head
        self._head = self._head[len(content) :]
        content = content or self._stream.read(size)
        self.quotes += content.count(b'"')
        if self._decoder and not (content.isascii() and self._is_ascii):
            self._decoder.decode(content, final=not content)
            self._is_ascii = not self._decoder.getstate()[0]
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
