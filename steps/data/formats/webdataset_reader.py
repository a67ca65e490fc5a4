"""Reader of webdataset tar archives: members with the same name up to the first dot are one row.

``0001.json`` has the columns of the row; ``0001.txt`` is the column ``text``, if the JSON has none, and other text
members (``0001.prompt``) are the columns of their extension. Members of different folders are different rows.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from steps.data.formats import json_reader
from steps.data.formats.file_errors import MAX_ROW_BYTES, FileErrors, row_too_large
from steps.data.formats.json_reader import InvalidRow
from steps.data.formats.row_types import RowTypes
from steps.data.formats.value_types import TypeConflict

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 4 << 20
FIX = "store each row as NAME.json with an object, or NAME.txt"


def read_webdataset(stream: BinaryIO, types: RowTypes, errors: FileErrors) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a tar archive.

    Errors of rows are added to ``errors``; the other rows are read nevertheless.

    Raises:
        TooManyErrors: reading stopped.
        tarfile.TarError, OSError, EOFError, ValueError: the archive is damaged.
    """
    rows: list[dict[str, Any]] = []
    size = 0
    for row, row_bytes in _iter_rows(stream, types, errors):
        try:
            types.add(row)
        except (TypeConflict, RecursionError) as error:
            errors.add(None, f"{row['__key__']}: {error}", json_reader.FIX_TYPE)
            continue
        rows.append(row)
        size += row_bytes
        if size >= BATCH_BYTES:
            yield types.to_batch(rows)
            rows, size = [], 0
    if rows:
        yield types.to_batch(rows)


class _StrictMember(tarfile.TarInfo):
    """Member of an archive; a damaged or missing header is an error, which ``tarfile`` takes for the end."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> Any:
        """Return the next member."""
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # Two blocks of zeros are the end.
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset}") from error


def _iter_rows(stream: BinaryIO, types: RowTypes, errors: FileErrors) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield each row with its size in bytes."""
    row: dict[str, Any] = {}
    size = 0
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictMember) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # It would keep all of them.
            folder, _, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not member.isreg() or not extension or name.startswith((".", "_")):
                continue
            key = f"{folder}/{stem}"
            if key != row.get("__key__"):
                if len(row) > 1:
                    yield row, size
                row, size = {"__key__": key}, 0
            size += member.size
            _add_member(row, extension.lower(), member, archive, types, errors)
    if len(row) > 1:
        yield row, size


def _add_member(
    row: dict[str, Any],
    extension: str,
    member: tarfile.TarInfo,
    archive: tarfile.TarFile,
    types: RowTypes,
    errors: FileErrors,
) -> None:
    if extension not in ("json", "txt") and extension not in types.used:
        row.setdefault(extension, None)  # An image, for example: only its name is reported.
        return
    if member.size > MAX_ROW_BYTES:
        errors.add(None, f"{member.name}: {row_too_large(member.size)[0]}", row_too_large()[1])
        return
    file = archive.extractfile(member)
    content = file.read() if file else b""
    try:
        if extension == "json":
            row |= json_reader.parse_row(content)
        else:
            row["text" if extension == "txt" and "text" not in row else extension] = content.decode()
    except InvalidRow as error:
        errors.add(None, f"{member.name}: {error}", FIX)
    except UnicodeDecodeError as error:
        errors.add(None, f"{member.name}: byte {content[error.start]:#04x} is not UTF-8", "store texts as UTF-8")
