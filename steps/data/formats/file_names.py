"""Formats of data files by their names. Imports no heavy library, so that validate can use it."""

from __future__ import annotations

import re
from typing import Literal

FileFormat = Literal["parquet", "json", "csv", "arrow", "webdataset"]
Compression = Literal["", "gzip", "zstd", "bz2", "xz", "lz4"]

EXTENSIONS: dict[str, FileFormat] = {
    "parquet": "parquet",
    "pq": "parquet",
    "jsonl": "json",
    "ndjson": "json",
    "json": "json",
    "csv": "csv",
    "tsv": "csv",
    "arrow": "arrow",
    "arrows": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "tar": "webdataset",
}
COMPRESSIONS: dict[str, Compression] = {"gz": "gzip", "zst": "zstd", "bz2": "bz2", "xz": "xz", "lz4": "lz4"}
_ALIASES = {"tgz": "tar.gz", "tzst": "tar.zst", "gzip": "gz", "zstd": "zst"}
_SCRIPTS = {"php", "aspx", "ashx", "jsp", "cgi", "do"}
"""Extensions of programs that serve files: not the extension of the data."""
SUPPORTED = (
    "parquet (.parquet), JSON Lines (.jsonl), JSON (.json), CSV (.csv, .tsv), Arrow (.arrow, .feather) and webdataset "
    "(.tar), also compressed (.gz, .zst, .bz2, .xz, .lz4)"
)


def parse_name(name: str) -> tuple[FileFormat | None, Compression]:
    """Return format and compression that the extensions of a file name state; None if the format is unknown."""
    *_, name = name.split("/")
    parts = name.lower().split(".")[1:]
    if parts:
        parts = [*parts[:-1], *_ALIASES.get(parts[-1], parts[-1]).split(".")]
    compression = COMPRESSIONS.get(parts[-1], "") if parts else ""
    if compression:
        parts.pop()
    return EXTENSIONS.get(parts[-1]) if parts else None, compression


def is_readable(name: str) -> bool:
    """Return True if the file's extension is that of a supported format."""
    return parse_name(name)[0] is not None


def unsupported_extension(name: str) -> str:
    """Return the extension of a file name if it is that of another format; empty if it can be a supported one.

    The content decides about names without an extension, or with that of a program (``download.php``).
    """
    *_, name = name.split("/")
    if is_readable(name):
        return ""
    found = re.search(r"\.([A-Za-z][A-Za-z0-9]{0,9})$", name)
    if not found or not name[: found.start()] or found[1].lower() in _SCRIPTS:
        return ""
    extension = found[1].lower()
    if extension in COMPRESSIONS or extension in _ALIASES:
        return unsupported_extension(name[: found.start()])
    return f".{found[1]}"
