"""Detection of a file's format: its name states the format, its first bytes must agree."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path

from steps.data.formats import compressed, file_names
from steps.data.formats.file_names import Compression, FileFormat
from steps.runtime.errors import BadInput

HEAD = 512
NAMES: dict[FileFormat, str] = {
    "parquet": "parquet",
    "json": "JSON",
    "csv": "CSV",
    "arrow": "Arrow IPC",
    "webdataset": "a tar archive",
}


@dataclass(frozen=True)
class FileType:
    """Format and compression of a file."""

    format: FileFormat
    compression: Compression


def detect(path: Path, name: str) -> FileType:
    """Return the type of a file called ``name``.

    Raises:
        BadInput: the file is empty, of no supported format, or of another format than its name states.
    """
    with path.open("rb") as file:
        start = file.read(HEAD)
    if not start:
        raise BadInput(f"{name}: the file is empty", "check the URL or path")
    compression = compressed.compression_of(start)
    if compression:
        start = read_start(path, name)
    return FileType(check_start(name, start), compression)


def check_start(name: str, start: bytes) -> FileFormat:
    """Return the format of a file called ``name`` whose content begins with ``start``.

    Raises:
        BadInput: it is of no supported format, or of another format than its name states.
    """
    stated, actual = file_names.parse_name(name.partition("?")[0])[0], _format_of(start)
    if refused := _describe_unsupported(start, stated):
        raise BadInput(f"{name}: {refused[0]}", refused[1])
    if not stated and actual:
        return actual
    if not stated:
        raise BadInput(
            f"{name}: the format is not known from the name, nor from the content, which begins with {start[:16]!r}",
            f"give the file an extension: {file_names.SUPPORTED}",
        )
    if stated == "csv" and actual == "json":
        actual = "csv"  # A header can begin with a bracket.
    if (actual or stated) != stated or (not actual and stated in ("parquet", "arrow", "webdataset")):
        shown = NAMES[actual] if actual else f"data that begins with {start[:16]!r}"
        raise BadInput(
            f"{name}: not {_article(stated)} file, but {shown}",
            "name the file by its format" if actual else "write it again, or check the URL or path",
        )
    return stated


def read_start(path: Path, name: str) -> bytes:
    """Return the first bytes of a file's decompressed content.

    Raises:
        BadInput: the compressed data is damaged.
    """
    try:
        with compressed.open_stream(path) as stream:
            return stream.read(HEAD)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> BadInput:
    """Return the error of a file whose content cannot be read."""
    reason = str(error).partition("\n")[0][:200]
    return BadInput(f"{name}: the file is damaged ({reason})", "write or download it again")


def _format_of(start: bytes) -> FileFormat | None:
    """Return the format that the first bytes show; None for CSV and unknown content."""
    if start.startswith((b"PAR1", b"PARE")):
        return "parquet"
    if start.startswith((b"ARROW1", b"\xff\xff\xff\xff", b"FEA1")):
        return "arrow"
    if start[257:262] == b"ustar":
        return "webdataset"
    text = decode_start(start).lstrip("\ufeff \t\r\n")
    return "json" if text.startswith(("{", "[")) else None


def decode_start(start: bytes) -> str:
    """Return the first bytes as text, by their byte order mark."""
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    return start.decode(encoding, errors="replace")


def _describe_unsupported(start: bytes, stated: FileFormat | None) -> tuple[str, str] | None:
    """Return message and fix for content that is certainly not data."""
    if start.startswith(b"PARE"):
        return "an encrypted parquet file, which is not supported", "write it without encryption"
    if start.startswith(b"FEA1"):
        return "a Feather file of version 1, which is not supported", "write it as version 2, or as parquet"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "run git lfs pull, or use the file's download URL"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive or an Excel file, which is not supported", f"use {file_names.SUPPORTED}"
    begins = start.lstrip().lower()
    if begins.startswith((b"<!doctype", b"<html")) or (stated != "csv" and begins.startswith(b"<")):
        return (
            f"not {_article(stated) if stated else 'a data'} file, but a web page",
            "use the file's download URL (on huggingface.co /resolve/ instead of /blob/, on GitHub the raw file)",
        )
    return None


def _article(stated: FileFormat) -> str:
    name = NAMES[stated].removeprefix("a ")
    return f"an {name}" if name.startswith("A") else f"a {name}"
