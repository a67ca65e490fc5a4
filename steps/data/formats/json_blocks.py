"""Blocks of JSON rows: lines, or the elements of an array, found without parsing their values."""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from steps.data.formats.file_errors import MAX_ROW_BYTES

if TYPE_CHECKING:
    import numpy as np

BLOCK_BYTES = 4 << 20
SPACE = b" \t\r\n"
NEWLINE, QUOTE, BACKSLASH, BRACE = 10, 34, 92, 123


@dataclass
class Block:
    """Rows in ``data``: row n is ``data[starts[n]:ends[n]]``."""

    data: bytes
    starts: np.ndarray
    ends: np.ndarray
    line: int
    """Line of the first byte, counted from 1."""

    def line_of(self, row: int) -> int:
        """Return the line at which a row begins."""
        return self.line + self.data.count(b"\n", 0, int(self.starts[row]))


class RowTooLarge(Exception):
    """A row exceeds ``MAX_ROW_BYTES``."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class Misplaced(Exception):
    """Text that does not belong between rows, or an end within a row."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def read_lines(stream: BinaryIO, data: bytes = b"", line: int = 1) -> Iterator[Block]:
    """Yield the lines of a stream that are not blank, in blocks. ``data`` was read from it already.

    Raises:
        RowTooLarge: a line exceeds the limit.
    """
    import numpy as np

    is_last = False
    while not is_last:
        chunk = stream.read(BLOCK_BYTES)
        is_last = not chunk
        end = len(chunk) if is_last else chunk.rfind(b"\n") + 1
        if not end and not is_last:
            data += chunk
            if len(data) > MAX_ROW_BYTES:
                raise RowTooLarge(line + data.count(b"\n"))
            continue
        text, data = data + chunk[:end], chunk[end:]
        bounds = np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)
        starts, ends = np.concatenate([[0], bounds + 1]), np.concatenate([bounds, [len(text)]])
        if (too_large := np.flatnonzero(ends - starts > MAX_ROW_BYTES)).size:
            raise RowTooLarge(line + int(too_large[0]))
        firsts = np.frombuffer(text + b"\n", np.uint8)[starts]
        keep = np.ones(len(starts), bool)
        for row in np.flatnonzero(firsts != BRACE).tolist():
            keep[row] = bool(text[starts[row] : ends[row]].strip(SPACE))
        if keep.any():
            yield Block(text, starts[keep], ends[keep], line)
        line += len(bounds)


def read_objects(
    stream: BinaryIO, data: bytes, line: int = 1, *, in_list: bool = True
) -> Generator[Block, None, bytes]:
    """Yield the objects of a list, or consecutive objects if not ``in_list``, in blocks; return what follows the list.

    Args:
        stream: the text, in UTF-8.
        data: what was read from the stream already, after the bracket that opens the list.
        line: line of the first byte.
        in_list: objects are separated by commas, and a bracket ends them.

    Raises:
        RowTooLarge: an object exceeds the limit.
        Misplaced: other text between the objects, or the text ends within one.
    """
    is_first, is_last = True, False
    while True:
        if not is_last:
            chunk = stream.read(BLOCK_BYTES)
            is_last, data = not chunk, data + chunk
        starts, ends, closed = _find_objects(data)
        if len(starts):
            text = _without_commas(data, starts, ends, line, in_list, is_first)
            yield Block(text, starts, ends, line)
            is_first = False
        used = int(ends[-1]) if len(starts) else 0
        line, data, closed = line + data.count(b"\n", 0, used), data[used:], closed - used
        if closed >= 0:
            rest = data[:closed].strip(SPACE)
            if not in_list or rest:
                raise Misplaced(line, "text between the rows, which must be objects")
            return data[closed + 1 :]
        if is_last:
            if data.strip(SPACE) or in_list:
                raise Misplaced(line, "the file ends within a row or list")
            return b""
        if len(data) > MAX_ROW_BYTES + BLOCK_BYTES:
            raise RowTooLarge(line + data.count(b"\n", 0, len(data) - len(data.lstrip(SPACE + b","))))


def _find_objects(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """Return start and end of each whole value in brackets, and the index of the bracket that closes the list.

    The index is -1 if the data ends before.
    """
    import numpy as np

    text = np.frombuffer(data, np.uint8)
    positions = np.flatnonzero(_structural()[text])
    kinds = text[positions]
    quotes = kinds == QUOTE
    backslashes = positions[kinds == BACKSLASH]
    if len(backslashes):
        # In a run of backslashes each second one is escaped, and so is a quote after an odd number.
        number = np.arange(len(backslashes))
        begins = np.concatenate([[True], np.diff(backslashes) != 1])
        in_run = number - np.maximum.accumulate(np.where(begins, number, 0))
        escaped = np.zeros(len(text) + 1, bool)
        escaped[backslashes[in_run % 2 == 0] + 1] = True
        quotes &= ~escaped[positions]
    outside = np.cumsum(quotes, dtype=np.int32) % 2 == 0
    steps = _steps()[kinds]
    steps[~outside] = 0
    depth = np.cumsum(steps, dtype=np.int32)
    closing = np.flatnonzero(depth < 0)
    closed = -1
    if len(closing):
        closed = int(positions[closing[0]])
        positions, steps = positions[: closing[0]], steps[: closing[0]]
        depth = depth[: closing[0]]
    starts, ends = positions[(steps == 1) & (depth == 1)], positions[(steps == -1) & (depth == 0)] + 1
    return starts[: len(ends)], ends, closed


def _without_commas(
    data: bytes, starts: np.ndarray, ends: np.ndarray, line: int, in_list: bool, is_first: bool
) -> bytes:
    """Return the text with spaces instead of the commas between objects, as the parser reads consecutive objects."""
    text, before, allowed = bytearray(data[: ends[-1]]), 0, (b",",) if in_list else (b"",)
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        between = data[before:start].translate(None, SPACE)
        if between not in ((b"",) if is_first and row == 0 else allowed) or data[start] != ord("{"):
            message = "a row is a list, not an object" if data[start] == ord("[") else "text between the rows"
            raise Misplaced(line + data.count(b"\n", 0, start), message)
        if between:
            text[data.index(b",", before, start)] = ord(" ")
        before = end
    return bytes(text)


@functools.cache
def _structural() -> np.ndarray:
    """Return True for each byte that can begin or end an object, a list or a text."""
    import numpy as np

    table = np.zeros(256, bool)
    table[list(b'"\\[]{}')] = True
    return table


@functools.cache
def _steps() -> np.ndarray:
    """Return the change of depth at each byte."""
    import numpy as np

    table = np.zeros(256, np.int8)
    table[list(b"[{")], table[list(b"]}")] = 1, -1
    return table
