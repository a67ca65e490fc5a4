"""Rows of data: check them, bring them to one format, split and write them.

What formats are read stands in ``row_formats.py``. What is written has ``messages``, of preference data ``rejected``
too, and of mere text ``text`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from steps.data import row_formats, row_messages
from steps.data.parquet_batches import ahead, batches
from steps.data.row_formats import Columns, Format
from steps.download import row_checks
from steps.runtime import files
from steps.runtime.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROW_GROUP = 16 << 20
"""Bytes of a row group: readers that want one row take in a group."""
SHOWN = 5
KINDS_SHOWN = 10


@dataclass(frozen=True)
class DataFile:
    """A parquet file, and what the user calls it: an address or a path."""

    path: Path
    name: str


class UnusableData(BadInput):
    """Files that cannot be tuned on, with all that is wrong in them."""

    def __init__(self, what: str, fix: str, at_fault: Sequence[Path]) -> None:
        super().__init__(what, fix)
        self.at_fault = at_fault


@dataclass
class NormalizedRows:
    """What ``normalize`` found."""

    counts: list[int] = field(default_factory=list)
    """Rows of each file."""
    digests: list[np.ndarray] = field(default_factory=list)
    """A number for each row that rows of the same content share, in order; it is another in each process."""
    unused: list[str] = field(default_factory=list)
    """Columns that were there and are not used."""


def format_of(data: Sequence[DataFile], columns: Columns = MappingProxyType({})) -> Format:
    """Find the one format that all files have, looking at their footers only.

    Raises:
        UnusableData: files that are not parquet, have no rows, lack the columns, or differ in format.
    """
    formats: dict[Path, Format] = {}
    faults: dict[Path, BadInput] = {}
    for file in data:
        try:
            formats[file.path] = _footer_format(file, columns)
        except BadInput as error:
            faults[file.path] = error
    if faults:
        fixes = dict.fromkeys(error.fix for error in faults.values())
        raise UnusableData("\n  ".join(error.message for error in faults.values()), "; ".join(fixes), list(faults))
    if len(set(formats.values())) > 1:
        lines = [f"{file.name}: {formats[file.path]}" for file in data]
        raise UnusableData(
            "the files differ in format:\n  " + "\n  ".join(lines), "give all of them the same columns", list(formats)
        )
    return formats[data[0].path]


def count_rows(data: Sequence[DataFile]) -> int:
    """Rows of all files, as their footers say."""
    import pyarrow.parquet as pq

    return sum(int(pq.read_metadata(file.path).num_rows) for file in data)


def normalize(
    data: Sequence[DataFile],
    data_format: Format,
    keep: Callable[[pa.RecordBatch], object],
    columns: Columns = MappingProxyType({}),
) -> NormalizedRows:
    """Check every row, and hand the rows as they are to be written to ``keep``, batch by batch.

    Raises:
        UnusableData: rows that cannot be used. None is dropped quietly: that would tune on other data than was given.
    """
    import pyarrow as pa

    found = NormalizedRows()
    faults: dict[Path, str] = {}
    for file in data:
        wrong: dict[str, _Faulty] = {}
        count = 0
        try:
            for rows in ahead(_batches(file, data_format, columns, found.unused)):
                for number, fault in row_checks.faults(rows).items():
                    wrong.setdefault(fault, _Faulty()).add(count + number)
                count += len(rows)
                if not wrong and not faults:
                    kept = row_messages.finished(rows)
                    found.digests.append(_digests(kept))
                    keep(kept)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            wrong.setdefault(f"damaged: {_first_line(error)}", _Faulty()).add(count)
        found.counts.append(count)
        if not wrong and count != (told := count_rows([file])):
            wrong[f"damaged: its footer tells of {told} rows"] = _Faulty(1, [count])
        if wrong:
            faults[file.path] = _told(file, wrong, count)
    if faults:
        raise UnusableData(
            "rows that cannot be used (counted from 0):\n  " + "\n  ".join(faults.values()),
            "mend or remove these rows"
            + (
                "; a row needs user and assistant turns with text, the assistant's last"
                if data_format != "text"
                else ""
            ),
            list(faults),
        )
    return found


def split(count: int, eval_split: float, shuffle: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out; without ``shuffle`` the last ones are held out.

    Raises:
        BadInput: too few rows to hold any out.
    """
    import numpy as np

    order = np.arange(count, dtype=np.uint32 if count < 2**32 else np.uint64)
    if shuffle:
        # RandomState, because NumPy promises (NEP 19) that its stream never changes; that of default_rng may.
        np.random.RandomState(seed).shuffle(order)
    held_out = max(1, round(count * eval_split)) if eval_split else 0
    if held_out >= count:
        raise BadInput(
            f"{count} rows cannot be split: {held_out} of them would be held out", "give more rows or a smaller split"
        )
    return order[: count - held_out], order[count - held_out :]


def write_parquet(tables: Iterable[pa.Table], schema: pa.Schema, counts: Mapping[Path, int]) -> None:
    """Write the rows of ``tables``, so many to each file, each file whole or not at all."""
    import pyarrow.parquet as pq

    coming = ahead(tables)
    rest = schema.empty_table()
    # Only roles repeat; a dictionary of whole texts would be built and thrown away.
    options = {"compression": "zstd", "use_dictionary": [f"{name}.list.element.role" for name in schema.names]}
    for path, count in counts.items():
        with files.replacing(path) as sink, pq.ParquetWriter(sink, schema, **options) as writer:
            while count:
                rest = rest if len(rest) else next(coming)
                part, rest = rest.slice(0, count), rest.slice(count)
                writer.write_table(part, row_group_size=max(1, len(part) * ROW_GROUP // max(part.nbytes, 1)))
                count -= len(part)


def repeated(digests: Sequence[np.ndarray], train: np.ndarray, held_out: np.ndarray) -> tuple[int, int]:
    """How many rows repeat an earlier one, and how many held-out rows stand among the training rows too."""
    import numpy as np

    rows = np.concatenate(digests)
    seen, asked = np.sort(rows[train]), rows[held_out]
    leaked = np.count_nonzero(seen[np.searchsorted(seen, asked).clip(max=len(seen) - 1)] == asked)
    rows.sort()
    return int(np.count_nonzero(rows[1:] == rows[:-1])), int(leaked)


@dataclass
class _Faulty:
    """Rows with the same fault."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.count += 1
        if self.count <= SHOWN:
            self.first.append(row)


def _footer_format(file: DataFile, columns: Columns) -> Format:
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = file.path.stat().st_size
    if size == 0:
        raise BadInput(f"{file.name}: the file is empty", "see what is at this place")
    with file.path.open("rb") as opened:
        start = opened.read(64)
    if not start.startswith(b"PAR1"):
        raise BadInput(f"{file.name}: not a parquet file, but {_kind(start)}", _way_to_parquet(start))
    try:
        with pq.ParquetFile(file.path) as parquet:
            schema, count = parquet.schema_arrow, parquet.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{file.name}: a damaged parquet file ({_first_line(error)})", "write it again") from error
    found = row_formats.of_schema(file.name, schema, columns)
    if count == 0:
        raise BadInput(f"{file.name}: the file has no rows", "leave it out, or fill it")
    return found


def _batches(file: DataFile, data_format: Format, columns: Columns, unused: list[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    names = pq.read_schema(file.path).names
    used = row_formats.used_columns(data_format, names, columns)
    unused += [name for name in names if name not in (*used.values(), *unused)]
    for batch in batches(file.path, list(used.values())):
        yield row_messages.to_messages(data_format, {known: batch.column(name) for known, name in used.items()})


def _told(file: DataFile, wrong: dict[str, _Faulty], count: int) -> str:
    lines = [f"{file.name}: {sum(faulty.count for faulty in wrong.values())} of {count} rows"]
    for fault, rows in list(wrong.items())[:KINDS_SHOWN]:
        some = ", ".join(map(str, rows.first)) + (", ..." if rows.count > SHOWN else "")
        lines.append(f"  {fault}: {rows.count} ({'row' if rows.count == 1 else 'rows'} {some})")
    if len(wrong) > KINDS_SHOWN:
        lines.append(f"  and {len(wrong) - KINDS_SHOWN} more kinds of fault")
    return "\n  ".join(lines)


def _digests(rows: pa.RecordBatch) -> np.ndarray:
    import numpy as np
    import pyarrow.compute as pc

    columns = [rows["text"]] if "text" in rows.schema.names else [_as_text(column) for column in rows.columns]
    text = columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, "")
    _, offsets, content = text.buffers()
    whole = content.to_pybytes() if content else b""
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1].tolist()
    # Python's own hash is salted, so that nobody can make rows that seem equal.
    return np.fromiter((hash(whole[start:end]) for start, end in pairwise(ends)), np.int64, len(text))


def _as_text(column: pa.ListArray) -> pa.StringArray:
    """Each row's messages as one text, with lengths, so that other messages make another text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    role, content = (column.flatten().field(part) for part in ("role", "content"))
    message = pc.binary_join_element_wise(role, pc.cast(pc.binary_length(content), pa.string()), content, ":")
    return pc.binary_join(row_messages.in_lists(row_messages.lengths_of(column), message), "")


def _kind(start: bytes) -> str:
    head = start.lstrip().lower()
    if head.startswith(b"<"):
        return "a web page"
    if head.startswith((b"{", b"[")):
        return "JSON"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    if start.startswith((b"\x1f\x8b", b"PK", b"\x28\xb5\x2f\xfd", b"BZh")):
        return "a compressed archive"
    return f"begins with {start[:16]!r}"


def _way_to_parquet(start: bytes) -> str:
    if _kind(start) == "a web page":
        return "give the file's own address (on huggingface.co /resolve/ instead of /blob/, on GitHub the raw file)"
    return "give parquet files; pandas, polars and datasets write them with to_parquet or write_parquet"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
