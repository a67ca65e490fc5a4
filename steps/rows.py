"""Rows of chat data: check them, bring them to one format, shuffle and split them.

What formats are read stands in ``row_formats.py``; what is written has ``messages`` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from steps import files, row_formats
from steps.errors import BadInput
from steps.row_formats import Columns, Format, Message

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

ROLES = ("system", "user", "assistant")
# Fields of OpenAI's messages that change what a row teaches; others (name, id, ...) are only remarks.
NOT_LEARNED = ("tool_calls", "function_call", "weight")
AT_ONCE = 1000
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
class Normalised:
    """What ``normalise`` found."""

    counts: list[int] = field(default_factory=list)
    """Rows of each file."""
    digests: list[bytes] = field(default_factory=list)
    """Digest of each row's messages, in order."""
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
        raise UnusableData("\n  ".join(error.what for error in faults.values()), "; ".join(fixes), list(faults))
    if len(set(formats.values())) > 1:
        lines = [f"{file.name}: {formats[file.path]}" for file in data]
        raise UnusableData(
            "the files differ in format:\n  " + "\n  ".join(lines), "give all of them the same columns", list(formats)
        )
    return formats[data[0].path]


def normalise(
    data: Sequence[DataFile], data_format: Format, spool: Path, columns: Columns = MappingProxyType({})
) -> Normalised:
    """Check every row and write its messages to ``spool``, an Arrow file, batch by batch.

    Raises:
        UnusableData: rows that cannot be used. None is dropped quietly: that would tune on other data than was given.
    """
    import pyarrow as pa

    found = Normalised()
    faults: dict[Path, str] = {}
    schema = _schema()
    with pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for file in data:
            wrong: dict[str, list[int]] = {}
            count = 0
            try:
                for rows in _batches(file, data_format, columns, found.unused):
                    for row in rows:
                        fault = _fault(row)
                        if fault:
                            wrong.setdefault(fault, []).append(count)
                        count += 1
                    if not wrong and not faults:
                        kept = [
                            [{key: turn[key] for key in ("role", "content")} for turn in row or ()] for row in rows
                        ]
                        found.digests += [_digest(row) for row in kept]
                        writer.write_batch(pa.RecordBatch.from_pylist([{"messages": row} for row in kept], schema))
            except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise
                wrong.setdefault(f"damaged: {_first_line(error)}", []).append(count)
            found.counts.append(count)
            if wrong:
                faults[file.path] = _told(file, wrong, count)
    if faults:
        raise UnusableData(
            "rows that cannot be used (counted from 0):\n  " + "\n  ".join(faults.values()),
            "mend or remove these rows; a row needs user and assistant turns with text, the assistant's last",
            list(faults),
        )
    return found


def split(count: int, eval_split: float, shuffle: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to hold out; without ``shuffle`` the last ones are held out.

    Raises:
        BadInput: too few rows to hold any out.
    """
    import numpy as np

    # RandomState, because NumPy promises (NEP 19) that its stream never changes; that of default_rng may.
    order = np.random.RandomState(seed).permutation(count) if shuffle else np.arange(count)
    held_out = max(1, round(count * eval_split)) if eval_split else 0
    if held_out >= count:
        raise BadInput(
            f"{count} rows cannot be split: {held_out} of them would be held out", "give more rows or a smaller split"
        )
    return order[: count - held_out], order[count - held_out :]


def write_parquet(spool: Path, numbers: np.ndarray, path: Path) -> None:
    """Write the rows of ``spool`` that ``numbers`` names, in that order, whole or not at all.

    Only ``AT_ONCE`` rows are in memory at a time; the spool is mapped, not read.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.memory_map(str(spool)) as source, files.replacing(path) as sink:
        reader = pa.ipc.open_file(source)
        lengths = [reader.get_batch(i).num_rows for i in range(reader.num_record_batches)]
        starts = np.cumsum([0, *lengths[:-1]])
        with pq.ParquetWriter(sink, reader.schema, compression="zstd") as writer:
            for first in range(0, len(numbers), AT_ONCE):
                writer.write_table(_gather(reader, starts, numbers[first : first + AT_ONCE]))


def repeated(digests: Sequence[bytes], train: np.ndarray, held_out: np.ndarray) -> tuple[int, int]:
    """How many rows repeat an earlier one, and how many held-out rows stand among the training rows too."""
    seen = {digests[i] for i in train}
    return len(digests) - len(set(digests)), sum(digests[i] in seen for i in held_out)


def _schema() -> pa.Schema:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema([("messages", pa.list_(message))])


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


def _batches(
    file: DataFile, data_format: Format, columns: Columns, unused: list[str]
) -> Iterator[list[list[Message] | None]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file.path) as parquet:
        names = parquet.schema_arrow.names
        used = row_formats.used_columns(data_format, names, columns)
        unused += [name for name in names if name not in (*used.values(), *unused)]
        for batch in parquet.iter_batches(AT_ONCE, columns=list(used.values())):
            values = {known: batch.column(name).to_pylist() for known, name in used.items()}
            yield row_formats.to_messages(data_format, values)


def _fault(row: list[Message] | None) -> str:
    """Why a row cannot be used; empty if it can."""
    if row is None:
        return "no value (null)"
    if not all(row):
        return "a message that is null"
    extra = [key for message in row for key in NOT_LEARNED if message.get(key)]
    if extra:
        return f"a message with `{extra[0]}`, which is not learned"
    roles = [message["role"] for message in row]
    strange = [role for role in roles if role not in ROLES]
    if strange:
        return f"a role {json.dumps(strange[0])}; known are {', '.join(ROLES)}"
    if "assistant" not in roles:
        return "no assistant turn"
    if any(not (message["content"] or "").strip() for message in row):
        return "a message without text"
    if "system" in roles[1:]:
        return "a system message that is not the first"
    if roles[roles[0] == "system"] != "user":
        return "no user turn before the assistant's"
    return "" if roles[-1] == "assistant" else "the last turn is not the assistant's"


def _told(file: DataFile, wrong: dict[str, list[int]], count: int) -> str:
    lines = [f"{file.name}: {sum(map(len, wrong.values()))} of {count} rows"]
    for fault, rows in list(wrong.items())[:KINDS_SHOWN]:
        some = ", ".join(map(str, rows[:SHOWN])) + (", ..." if len(rows) > SHOWN else "")
        lines.append(f"  {fault}: {len(rows)} ({'row' if len(rows) == 1 else 'rows'} {some})")
    if len(wrong) > KINDS_SHOWN:
        lines.append(f"  and {len(wrong) - KINDS_SHOWN} more kinds of fault")
    return "\n  ".join(lines)


def _digest(row: list[Message]) -> bytes:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()[:16]


def _gather(reader: Any, starts: np.ndarray, wanted: np.ndarray) -> pa.Table:
    """The rows ``wanted`` in their order, taken batch by batch."""
    import numpy as np
    import pyarrow as pa

    order = np.argsort(wanted, kind="stable")
    ascending = wanted[order]
    batch_of = np.searchsorted(starts, ascending, side="right") - 1
    pieces = [
        reader.get_batch(int(i)).take(pa.array(ascending[batch_of == i] - starts[i])) for i in np.unique(batch_of)
    ]
    return pa.Table.from_batches(pieces).combine_chunks().take(pa.array(np.argsort(order, kind="stable")))


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
