"""Text files as UTF-8 without byte order mark."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, cast

CHUNK = 1 << 20
_MARKS = {codecs.BOM_UTF8: "", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def open_utf8(stream: BinaryIO) -> BinaryIO:
    """Return the text of a stream in UTF-8, without its byte order mark; UTF-16 is converted.

    Reading raises UnicodeDecodeError if UTF-16 is invalid; UTF-8 is not validated.
    """
    start = _read_fully(stream, 4)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            rest = _Prefixed(start[len(mark) :], stream)
            return cast(BinaryIO, io.BufferedReader(_Transcoded(rest, encoding) if encoding else rest, CHUNK))
    if len(start) == 4 and start[1] == start[3] == 0 != start[0]:
        return cast(BinaryIO, io.BufferedReader(_Transcoded(_Prefixed(start, stream), "utf-16-le"), CHUNK))
    return cast(BinaryIO, io.BufferedReader(_Prefixed(start, stream), CHUNK))


def _read_fully(stream: BinaryIO, size: int) -> bytes:
    content = b""
    while len(content) < size and (part := stream.read(size - len(content))):
        content += part
    return content


class _Prefixed(io.RawIOBase):
    """A stream after bytes that were read from it."""

    def __init__(self, prefix: bytes, stream: BinaryIO) -> None:
        self._prefix, self._stream = prefix, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        content = self._prefix[: len(view)] or self._stream.read(len(view))
        self._prefix = self._prefix[len(view) :]
        view[: len(content)] = content
        return len(content)


class _Transcoded(io.RawIOBase):
    """A stream in another encoding, as UTF-8."""

    def __init__(self, stream: io.RawIOBase, encoding: str) -> None:
        self._stream, self._decoder, self._rest = stream, codecs.getincrementaldecoder(encoding)(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self._rest:
            content = self._stream.read(CHUNK) or b""
            self._rest = self._decoder.decode(content, final=not content).encode()
            if not content:
                break
        part, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(part)] = part
        return len(part)
