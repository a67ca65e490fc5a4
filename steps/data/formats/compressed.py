"""Streams of compressed files, read with bounded memory."""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import Any, BinaryIO, cast

from steps.data.formats.file_names import Compression

MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
XZ_MEMORY = 256 << 20
"""Maximum dictionary of an xz stream, which the file sets."""
CHUNK = 1 << 20


def compression_of(start: bytes) -> Compression:
    """Return the compression of a file that begins with these bytes; empty if none is known."""
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), "")


def open_stream(path: Path) -> BinaryIO:
    """Open a file to read its content once, decompressed.

    Reading raises OSError, EOFError, ValueError or lzma.LZMAError if the compressed data is damaged.
    """
    import pyarrow as pa

    with path.open("rb") as file:
        compression = compression_of(file.read(8))
    if not compression:
        return path.open("rb")
    if compression == "xz":
        return cast(BinaryIO, io.BufferedReader(_XzReader(path.open("rb")), CHUNK))
    source: Any = pa.OSFile(str(path))
    return cast(BinaryIO, pa.CompressedInputStream(source, compression))


class _XzReader(io.RawIOBase):
    """Content of an xz file; unlike ``lzma.LZMAFile`` it limits the memory of the decompressor."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._decompressor = lzma.LZMADecompressor(memlimit=XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        while True:
            if self._decompressor.eof:
                rest = (self._decompressor.unused_data or self._source.read(CHUNK)).lstrip(b"\0")
                if not rest:
                    return 0
                self._decompressor = lzma.LZMADecompressor(memlimit=XZ_MEMORY)
            else:
                rest = self._source.read(CHUNK) if self._decompressor.needs_input else b""
                if not rest and self._decompressor.needs_input:
                    raise EOFError("the compressed data is truncated")
            content = self._decompressor.decompress(rest, size)
            if content:
                buffer[: len(content)] = content
                return len(content)

    def close(self) -> None:
        self._source.close()
        super().close()
