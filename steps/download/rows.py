"""Rows of training data: validate, normalize, split and write them.

``row_formats.py`` lists the supported formats. Output files have the column ``messages``, preference data
``rejected`` too, and text data only ``text``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from steps.data import decoded_size, row_formats, row_messages
from steps.data.formats import message_shapes
from steps.data.parquet_batches import prefetch, read_batches
from steps.data.row_formats import Columns, Format
from steps.download import row_checks
from steps.runtime import files
from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROW_GROUP = 16 << 20
"""Bytes of a row group, which readers load to access one row."""
MAX_ROWS_SHOWN = 5
MAX_ERRORS_SHOWN = 10
ENCRYPTED_FIX = "write it without encryption"
SEPARATE: frozenset[Format] = frozenset({"preference", "text"})
"""Formats whose rows have other columns than those of chats, and cannot be mixed with them."""


@dataclass(frozen=True)
class DataFile:
    """A parquet file, and its URL or path for messages."""

    path: Path
    name: str
    source: Path | None = None
    """The file that was converted to ``path``, if that is another one."""
    find_lines: Callable[[Collection[int]], Mapping[int, int]] | None = None
    """Returns the lines of rows in ``source``, for messages."""
    columns: Columns = field(default_factory=dict)
    """Column names of the format -> column names in the file."""
    input: str = ""
    """Name of its input; empty: the unnamed one."""

    @property
    def original(self) -> Path:
        """The file as it was downloaded."""
        return self.source or self.path


class UnusableData(BadInput):
    """Invalid data files, with all their errors."""

    def __init__(self, message: str, fix: str, invalid_files: Sequence[Path]) -> None:
        super().__init__(message, fix)
        self.invalid_files = invalid_files

    @classmethod
    def combine(cls, errors: Mapping[Path, BadInput]) -> UnusableData:
        """Return the errors of several files as one."""
        fixes = dict.fromkeys(error.fix for error in errors.values())
        return cls("\n  ".join(error.message for error in errors.values()), "; ".join(fixes), list(errors))


@dataclass
class NormalizedRows:
    """Statistics of normalized rows."""

    counts: list[int] = field(default_factory=list)
    """Rows of each file."""
    digests: list[np.ndarray] = field(default_factory=list)
    """Hash of each row's content, in order; salted per process."""
    unused: list[str] = field(default_factory=list)
    """Columns of the files that are not used."""
    not_learned: int = 0
    """Rows without a message to learn, because all have weight 0."""


def detect_common_format(data: Sequence[DataFile]) -> Format:
    """Return the common format of all files, from their footers; ``messages`` if inputs of chats differ in format.

    Raises:
        UnusableData: files that are not parquet, have no rows, miss the columns, differ in format within an input, or
            inputs of which one has chats, another pairs of answers or text.
    """
    formats: dict[Path, Format] = {}
    errors: dict[Path, BadInput] = {}
    for file in data:
        try:
            formats[file.original] = _detect_format(file)
        except BadInput as error:
            errors[file.original] = error
    if errors:
        raise UnusableData.combine(errors)
    by_input: dict[str, set[Format]] = {}
    for file in data:
        by_input.setdefault(file.input, set()).add(formats[file.original])
    different = set(formats.values())
    if len(different) == 1:
        return formats[data[0].original]
    lines = [f"{file.name}: {formats[file.original]}" for file in data]
    if any(len(kinds) > 1 for kinds in by_input.values()):
        fix = "use the same columns in all files, or put the others into pipeline.data.inputs"
        raise UnusableData("the files differ in format:\n  " + "\n  ".join(lines), fix, list(formats))
    if different & SEPARATE:
        fix = "mix chats with chats, pairs of answers with pairs, or text with text"
        raise UnusableData("these inputs cannot be mixed:\n  " + "\n  ".join(lines), fix, list(formats))
    return "messages"


def count_rows(data: Sequence[DataFile]) -> int:
    """Return the total rows of all files by their footers."""
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(file.path).num_rows) for file in data)


def has_message_fields(data: Sequence[DataFile]) -> bool:
    """Return True if messages of a file have fields besides role and content, by the footers."""
    return any(_has_message_fields(file, _detect_format(file)) for file in data)


def normalize(data: Sequence[DataFile], keep: Callable[[pa.RecordBatch], object]) -> NormalizedRows:
    """Validate every row, and pass the normalized rows to ``keep`` in batches.

    Raises:
        UnusableData: invalid rows. None is dropped silently, which would change the data.
    """
    import pyarrow as pa

    normalized = NormalizedRows()
    errors: dict[Path, str] = {}
    full = has_message_fields(data)
    for file in data:
        invalid: dict[str, _InvalidRows] = {}
        count = 0
        data_format = _detect_format(file)
        try:
            batches = _read_messages(file, data_format, normalized.unused, full=full)
            for batch in prefetch(_check(batches, full=full)):
                for number, reason in batch.invalid.items():
                    invalid.setdefault(reason, _InvalidRows()).add(count + number)
                count += batch.num_rows
                if batch.valid and not invalid and not errors:
                    normalized.digests.append(batch.valid.digests)
                    normalized.not_learned += batch.valid.not_learned
                    keep(batch.valid.rows)
        except decoded_size.RowTooLarge as error:
            invalid.setdefault(str(error), _InvalidRows()).add(count)
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            invalid.setdefault(f"damaged: {_first_line(error)}", _InvalidRows()).add(count)
        normalized.counts.append(count)
        if not invalid and count != (expected := count_rows([file])):
            invalid[f"damaged: its footer declares {expected} rows"] = _InvalidRows(1, [count])
        if invalid:
            errors[file.original] = _describe(file, invalid, count, _rename_misspelled(file, data_format))
    if errors:
        raise UnusableData(
            "invalid rows (counted from 0):\n  " + "\n  ".join(errors.values()),
            "fix or remove these rows"
            + (
                "; a row needs user and assistant turns with text, and ends with an assistant turn"
                if data_format != "text"
                else ""
            ),
            list(errors),
        )
    return normalized


def split(
    count: int, eval_split: float, shuffle: bool, seed: int, name: str = "the data"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers to train on and to hold out; without ``shuffle`` the last ones are held out.

    ``name`` identifies the rows in messages.

    Raises:
        BadInput: too few rows to hold any out.
    """
    import numpy as np

    order = np.arange(count, dtype=np.uint32 if count < 2**32 else np.uint64)
    if shuffle:
        # RandomState: NumPy guarantees (NEP 19) that its stream never changes, unlike that of default_rng.
        np.random.RandomState(seed).shuffle(order)
    held_out = max(1, round(count * eval_split)) if eval_split else 0
    if held_out >= count:
        raise BadInput(
            f"{name}: cannot split {count} row{'s' * (count != 1)}: {held_out} would be held out for the evaluation",
            "add rows, or reduce the split",
        )
    return order[: count - held_out], order[count - held_out :]


def write_parquet(tables: Iterable[pa.Table], schema: pa.Schema, counts: Mapping[Path, int]) -> None:
    """Write the rows of ``tables``: ``counts`` rows to each file, atomically."""
    import pyarrow.parquet as pq

    upcoming = prefetch(tables)
    rest = schema.empty_table()
    # Only roles repeat; a dictionary of whole texts would be built and discarded.
    options = {"compression": "zstd", "use_dictionary": [f"{name}.list.element.role" for name in schema.names]}
    for path, count in counts.items():
        with files.replacing(path) as sink, pq.ParquetWriter(sink, schema, **options) as writer:
            while count:
                rest = rest if len(rest) else next(upcoming)
                part, rest = rest.slice(0, count), rest.slice(count)
                writer.write_table(part, row_group_size=max(1, len(part) * ROW_GROUP // max(part.nbytes, 1)))
                count -= len(part)


def count_duplicates(digests: Sequence[np.ndarray], train: np.ndarray, held_out: np.ndarray) -> tuple[int, int]:
    """Return the number of duplicate rows, and of held-out rows that are also training rows."""
    import numpy as np

    rows = np.concatenate(digests)
    seen, checked = np.sort(rows[train]), rows[held_out]
    leaked = np.count_nonzero(seen[np.searchsorted(seen, checked).clip(max=len(seen) - 1)] == checked)
    rows.sort()
    return int(np.count_nonzero(rows[1:] == rows[:-1])), int(leaked)


@dataclass(frozen=True)
class _ValidRows:
    """Rows as they are written."""

    rows: pa.RecordBatch
    digests: np.ndarray
    not_learned: int


@dataclass(frozen=True)
class _Checked:
    """A batch of rows that was checked in another thread than the one that writes it."""

    num_rows: int
    invalid: dict[int, str]
    """Index -> reason of each invalid row."""
    valid: _ValidRows | None


def _check(batches: Iterable[pa.RecordBatch], *, full: bool) -> Iterator[_Checked]:
    for batch in batches:
        valid, invalid = None, row_checks.find_invalid_rows(batch)
        if not invalid:
            rows = row_messages.finalize(batch)
            valid = _ValidRows(rows, _hash_rows(rows), row_checks.count_not_learned(rows) if full else 0)
        yield _Checked(len(batch), invalid, valid)


@dataclass
class _InvalidRows:
    """Rows with the same error."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if self.count <= MAX_ROWS_SHOWN:
            self.first.append(row)


def _detect_format(file: DataFile) -> Format:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file.path) as parquet:
            schema, count = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        if "ncrypt" in str(error):
            raise BadInput(f"{file.name}: an encrypted parquet file, which is not supported", ENCRYPTED_FIX) from error
        raise BadInput(f"{file.name}: a damaged parquet file ({_first_line(error)})", "write it again") from error
    data_format = row_formats.detect_format(
        file.name, message_shapes.canonical_schema(file.name, schema, file.columns), file.columns
    )
    if count == 0:
        raise BadInput(f"{file.name}: the file has no rows", "remove it, or add rows")
    return data_format


def _has_message_fields(file: DataFile, data_format: Format) -> bool:
    import pyarrow.parquet as pq

    schema = message_shapes.canonical_schema(file.name, pq.read_schema(file.path), file.columns)
    used = row_formats.used_columns(data_format, schema.names, file.columns)
    return row_messages.has_other_fields(data_format, schema, used)


def _read_messages(
    file: DataFile, data_format: Format, unused: list[str], *, full: bool = False
) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    names = pq.read_schema(file.path).names
    used = row_formats.used_columns(data_format, names, file.columns)
    unused += [name for name in names if name not in (*used.values(), *unused)]
    for batch in read_batches(file.path, list(used.values())):
        values = {known: message_shapes.canonical_column(known, batch.column(name)) for known, name in used.items()}
        yield row_messages.to_messages(data_format, values, full=full and data_format != "text")


def _describe(file: DataFile, invalid: dict[str, _InvalidRows], count: int, renames: str) -> str:
    lines = [f"{file.name}: {sum(rows.count for rows in invalid.values())} of {count} rows"]
    shown = list(invalid.items())[:MAX_ERRORS_SHOWN]
    places = file.find_lines({row for _, rows in shown for row in rows.first}) if file.find_lines else {}
    for reason, rows in shown:
        texts = [f"{row} at line {places[row]}" if row in places else str(row) for row in rows.first]
        numbers = ", ".join(texts) + (", ..." if rows.count > MAX_ROWS_SHOWN else "")
        lines.append(f"  {reason}: {rows.count} ({'row' if rows.count == 1 else 'rows'} {numbers})")
    if len(invalid) > MAX_ERRORS_SHOWN:
        lines.append(f"  and {len(invalid) - MAX_ERRORS_SHOWN} more kinds of errors")
    if renames:
        lines.append(f"  columns that are not read: {renames}")
    return "\n  ".join(lines)


def _rename_misspelled(file: DataFile, data_format: Format) -> str:
    """Return how to rename columns that are not read, and whose names are nearly those of the format."""
    import pyarrow.parquet as pq

    names = pq.read_schema(file.path).names
    kind = row_formats.FORMATS[data_format]
    used = row_formats.used_columns(data_format, names, file.columns)
    unused = [name for name in names if name not in used.values()]
    return row_formats.rename_misspelled(unused, (*kind.columns, *kind.optional))


def _hash_rows(rows: pa.RecordBatch) -> np.ndarray:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [rows["text"]] if "text" in rows.schema.names else [_as_text(column) for column in rows.columns]
    text = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, "")
    # Python's hash is salted, so that data cannot be crafted to collide.
    return np.fromiter(map(hash, pc.cast(text, pa.binary()).to_numpy(zero_copy_only=False)), np.int64, len(text))


def _as_text(column: pa.ListArray) -> pa.StringArray:
    """Return each row's messages as one text, with lengths to make it unambiguous."""
    import pyarrow as pa
    import pyarrow.compute as pc

    role, content = (column.flatten().field(part) for part in ("role", "content"))
    parts = [role, pc.cast(pc.binary_length(content), pa.string()), content]
    if column.type.value_type.get_field_index("fields") >= 0:
        others = (pc.cast(column.flatten().field(part), pa.string()) for part in ("train", "fields"))
        parts += [pc.fill_null(part, "") for part in others]
    message = pc.binary_join_element_wise(*parts, ":")
    return pc.binary_join(row_messages.build_lists(row_messages.lengths_of(column), message), "")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
