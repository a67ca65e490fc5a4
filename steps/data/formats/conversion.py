"""Conversion of a data file to parquet, which all later code reads."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import tarfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.data.formats import (
    arrow_reader,
    arrow_types,
    compressed,
    content,
    conversation_texts,
    csv_reader,
    file_names,
    json_reader,
    webdataset_reader,
)
from steps.data.formats.batch_writer import BatchWriter
from steps.data.formats.content import FileType
from steps.data.formats.conversation_texts import ConversationTexts
from steps.data.formats.file_errors import FileErrors, TooManyErrors
from steps.data.formats.row_types import RowTypes
from steps.data.parquet_batches import prefetch, read_batches
from steps.data.row_formats import COLUMN_NAMES
from steps.runtime import files

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
"""Version of the converted files; increase it when the same file is converted differently."""
CONVERSATION_COLUMNS = ("messages", "conversations")
"""Columns that can only be lists."""
OTHER_COLUMNS = (
    *("system", "system_prompt", "tools", "functions", "history", "documents", "chat_template_kwargs", "label"),
    *("weight", "train", "reasoning", "reasoning_content", "thinking", "image", "images", "video", "videos", "audio"),
    *("audios", "score_chosen", "score_rejected"),
)
"""Columns besides those of the formats that change what is learned."""


@dataclass(frozen=True)
class ColumnUse:
    """Columns whose values are kept; of all others only the names."""

    used: frozenset[str]
    conversations: frozenset[str]
    """Those that can only be lists of messages."""

    @classmethod
    def of(cls, columns: Mapping[str, str]) -> ColumnUse:
        """Return the use of columns that are mapped by ``columns``: name of the format -> name in the file."""
        return cls(
            frozenset((*COLUMN_NAMES, *OTHER_COLUMNS, *columns.values())),
            frozenset(columns.get(name, name) for name in CONVERSATION_COLUMNS),
        )


def to_parquet(path: Path, name: str, digest: str, use: ColumnUse, folder: Path) -> Path:
    """Return a parquet file with the rows of a file called ``name``: the file itself, or its conversion in ``folder``.

    An existing conversion of a file with this digest is reused.

    Raises:
        BadInput: the format is not supported, or the file or rows are invalid; lists all errors.
    """
    file_type = content.detect(path, name)
    if file_type == FileType("parquet", "") and not _needs_conversion(path, use):
        return path
    key = json.dumps([VERSION, digest, file_type.format, sorted(use.used), sorted(use.conversations), _suffix(name)])
    target = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.parquet"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _convert(path, name, file_type, use, target)
    return target


def find_lines(path: Path, name: str, use: ColumnUse, numbers: Collection[int]) -> dict[int, int]:
    """Return the line at which each of the rows ``numbers`` begins, in files that have lines.

    Rows are counted from 0, lines from 1. The file was converted before.
    """
    file_type = content.detect(path, name)
    if not numbers or file_type.format not in ("json", "csv"):
        return {}
    if file_type.format == "csv":
        return csv_reader.find_lines(path, name, use.used, numbers)
    found: dict[int, int] = {}
    first, ordered = 0, sorted(numbers)
    with compressed.open_stream(path) as stream:
        for block in json_reader.read_blocks(stream, use.used, is_lines=_is_json_lines(name)):
            end = first + len(block.starts)
            found |= {number: block.line_of(number - first) for number in ordered if first <= number < end}
            first = end
            if first > ordered[-1]:
                break
    return found


def _needs_conversion(path: Path, use: ColumnUse) -> bool:
    """Return True if a parquet file has conversations in another form than lists of objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        for field in schema:
            kind = arrow_types.canonical_type(field.type)
            if field.name in use.used and conversation_texts.has_map(kind):
                return True
            if field.name in use.conversations and pa.types.is_string(kind):
                first = next(read_batches(path, [field.name], 1 << 16), None)
                if first and conversation_texts.has_json(arrow_types.canonical(first.column(field.name))):
                    return True
    except (pa.ArrowException, OSError, ValueError, KeyError):
        pass  # Reported where the file is read.
    return False


def _convert(path: Path, name: str, file_type: FileType, use: ColumnUse, target: Path) -> None:
    import pyarrow as pa

    errors, types = FileErrors(name), RowTypes(use.used)
    texts = ConversationTexts(use.used, use.conversations, errors)
    unpacked = target.with_suffix(".unpacked")
    with closing(BatchWriter(target)) as writer:
        try:
            if file_type.compression and file_type.format in ("parquet", "arrow"):
                _unpack(path, unpacked)
                path = unpacked
            for batch in prefetch(_read(path, name, file_type, types, errors)):
                writer.add(texts.expand(batch))
        except TooManyErrors:
            pass
        except (pa.ArrowException, tarfile.TarError, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:
                raise
            if not errors.lines:
                raise content.damaged(name, error) from error
        finally:
            unpacked.unlink(missing_ok=True)
        errors.raise_all()
        writer.finish()


def _read(path: Path, name: str, file_type: FileType, types: RowTypes, errors: FileErrors) -> Iterator[pa.RecordBatch]:
    if file_type.format == "parquet":
        yield from _read_parquet(path, name, types.used)
    elif file_type.format == "arrow":
        yield from arrow_reader.read_arrow(path, types.used, name)
    elif file_type.format == "csv":
        yield from csv_reader.read_csv(path, types.used, errors)
    else:
        with compressed.open_stream(path) as stream:
            if file_type.format == "json":
                yield from json_reader.read_json(stream, types, errors, is_lines=_is_json_lines(name))
            else:
                yield from webdataset_reader.read_webdataset(stream, types, errors)


def _read_parquet(path: Path, name: str, used: Collection[str]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names
    arrow_types.check_names(name, names)
    for batch in read_batches(path, [column for column in names if column in used]):
        existing = batch.schema.names
        columns = [
            arrow_types.canonical(batch.column(column)) if column in existing else pa.nulls(len(batch))
            for column in names
        ]
        yield pa.RecordBatch.from_arrays(columns, names=names)


def _unpack(path: Path, target: Path) -> None:
    with compressed.open_stream(path) as source, files.replacing(target) as sink:
        shutil.copyfileobj(source, sink, compressed.CHUNK)


def _is_json_lines(name: str) -> bool:
    """Return True if the name states JSON Lines."""
    return any(f".{part}" in name.lower().rpartition("/")[2] for part in ("jsonl", "ndjson"))


def _suffix(name: str) -> str:
    """Return the part of a name that changes how the file is read."""
    parts = name.partition("?")[0].rpartition("/")[2].lower().split(".")[1:]
    return ".".join(part for part in parts if part in file_names.EXTENSIONS or part in file_names.COMPRESSIONS)
