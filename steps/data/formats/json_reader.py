"""Reader of JSON Lines, of JSON lists of rows, and of objects with one such list.

pyarrow parses the rows with the types known so far, and refuses all others. Then the rows of the block are parsed one
by one, which extends the types, and finds the lines with errors. Types are never inferred by pyarrow, which would read
dates as timestamps, and crash on deeply nested lists.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from steps.data.formats import json_blocks
from steps.data.formats.file_errors import MAX_ROW_BYTES, FileErrors, row_too_large
from steps.data.formats.json_blocks import SPACE, Block, Misplaced, RowTooLarge
from steps.data.formats.object_parser import parse_objects
from steps.data.formats.row_types import RowTypes
from steps.data.formats.text_stream import open_utf8
from steps.data.formats.value_types import TypeConflict
from steps.data.parquet_batches import prefetch

if TYPE_CHECKING:
    import pyarrow as pa

FIX_JSON = "write each row as a JSON object, with json.dumps"
FIX_TYPE = "use one type in all rows"


def read_json(stream: BinaryIO, types: RowTypes, errors: FileErrors, *, is_lines: bool) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a JSON file; ``is_lines``: its name states JSON Lines.

    Errors of rows are added to ``errors``; the other rows are read nevertheless.

    Raises:
        TooManyErrors: reading stopped.
        OSError, EOFError, ValueError: the compressed data or the encoding is damaged.
    """
    try:
        for block in prefetch(read_blocks(stream, types.used, is_lines=is_lines)):
            batch = _parse_fast(block, types)
            if batch is None:
                batch = _parse_rows(block, types, errors)
            if len(batch):
                yield batch
    except RowTooLarge as error:
        errors.add(error.line, *row_too_large())
    except Misplaced as error:
        errors.add(error.line, str(error), FIX_JSON)


def read_blocks(stream: BinaryIO, used: Collection[str], *, is_lines: bool) -> Iterator[Block]:
    """Yield the rows of a JSON file without parsing them.

    Raises:
        RowTooLarge, Misplaced: the rows cannot be separated.
    """
    text = open_utf8(stream)
    data = _read_line(text)
    line = 1 + data[: len(data) - len(data.lstrip(SPACE))].count(b"\n")
    data = data.lstrip(SPACE)
    if data.startswith(b"["):
        rest = yield from json_blocks.read_objects(text, data[1:], line)
        _expect_end(rest + text.read(json_blocks.BLOCK_BYTES))
    elif is_lines or not data.startswith(b"{") or _is_row(data.partition(b"\n")[0], used):
        yield from json_blocks.read_lines(text, data, line)
    elif (start := _find_list(data, used)) >= 0:
        rest = yield from json_blocks.read_objects(text, data[start:], line + data.count(b"\n", 0, start))
        _check_rest(rest + text.read(json_blocks.BLOCK_BYTES))
    else:
        yield from json_blocks.read_objects(text, data, line, in_list=False)


def _read_line(text: BinaryIO) -> bytes:
    """Return the start of the text up to the end of the first line with text, or more; at most that of a list."""
    data = b""
    while len(data) <= MAX_ROW_BYTES and (chunk := text.read(json_blocks.BLOCK_BYTES)):
        data += chunk
        if b"\n" in data.lstrip(SPACE) or data.lstrip(SPACE).startswith(b"["):
            break
    return data


def _is_row(line: bytes, used: Collection[str]) -> bool:
    """Return True if the first line is a row, or is invalid for another reason than a missing end."""
    try:
        value = json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        # A whole line whose brackets match is an invalid row, and the others are lines too.
        starts, _, closed = json_blocks._find_objects(line)
        return bool(len(starts)) or closed >= 0
    return not isinstance(value, dict) or _list_key(value, used) is None


def _list_key(value: dict[str, Any], used: Collection[str]) -> str | None:
    """Return the key of the only list of objects in an object that is no row; None if it is a row."""
    lists = [key for key, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict)]
    return lists[0] if len(lists) == 1 and not set(value) & set(used) else None


def _find_list(data: bytes, used: Collection[str]) -> int:
    """Return the index after the bracket that opens the list of rows in an object; -1 if there is none."""
    text = data.decode("utf-8", errors="replace")
    decoder, position = json.JSONDecoder(), 1
    try:
        while True:
            position = _skip_space(text, position)
            key, position = decoder.raw_decode(text, position)
            position = _skip_space(text, position)
            if not isinstance(key, str) or key in used or text[position] != ":":
                return -1
            position = _skip_space(text, position + 1)
            if text[position] == "[" and text[_skip_space(text, position + 1)] == "{":
                return len(text[: position + 1].encode())
            _, position = decoder.raw_decode(text, position)
            position = _skip_space(text, position)
            if text[position] != ",":
                return -1
            position += 1
    except (ValueError, IndexError, RecursionError):
        return -1


def _skip_space(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def _check_rest(rest: bytes) -> None:
    """Refuse an object with a second list after the list of rows."""
    try:
        value = json.loads(b'{"":0' + rest)
    except (ValueError, RecursionError) as error:
        raise Misplaced(1, "the object that contains the list of rows is not valid JSON after it") from error
    if others := [key for key, part in value.items() if isinstance(part, list) and part and isinstance(part[0], dict)]:
        raise Misplaced(
            1, f"the object contains several lists, also {json.dumps(others[0])}: only one can be the rows"
        )


def _expect_end(rest: bytes) -> None:
    if rest.strip(SPACE):
        raise Misplaced(1, "text follows after the list of rows")


def _parse_fast(block: Block, types: RowTypes) -> pa.RecordBatch | None:
    """Return the rows of a block; None if they have errors or new types."""
    if not types.types or block.data[block.starts[0]] != ord("{") or not _is_utf8(block.data):
        return None
    batch = parse_objects(block.data, types.schema(parsed=True))
    return types.without_unused(batch) if batch is not None and len(batch) == len(block.starts) else None


def _is_utf8(data: bytes) -> bool:
    try:
        return data.isascii() or bool(data.decode())
    except UnicodeDecodeError:
        return False


def _parse_rows(block: Block, types: RowTypes, errors: FileErrors) -> pa.RecordBatch:
    """Parse the rows of a block one by one, adding their types and errors."""
    rows: list[dict[str, Any]] = []
    for number, (start, end) in enumerate(zip(block.starts.tolist(), block.ends.tolist(), strict=True)):
        try:
            row = parse_row(block.data[start:end])
            types.add(row)
            rows.append(row)
        except InvalidRow as error:
            errors.add(block.line_of(number), str(error), FIX_JSON)
        except (TypeConflict, RecursionError) as error:
            message = str(error) if isinstance(error, TypeConflict) else "it is nested too deeply"
            errors.add(block.line_of(number), message, FIX_TYPE)
    return types.to_batch(rows)


class InvalidRow(Exception):
    """Text that is not a JSON object."""


def parse_row(text: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InvalidRow: the text is invalid, or another value.
    """
    try:
        decoded = text.decode()
        value = json.loads(decoded, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise InvalidRow(f"byte {text[error.start]:#04x} is not UTF-8") from error
    except RecursionError as error:
        raise InvalidRow("it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise InvalidRow(f"invalid JSON: {error.msg} (column {error.colno})") from error
    except ValueError as error:
        raise InvalidRow(f"invalid JSON: {str(error)[:100]}") from error
    if not isinstance(value, dict):
        kinds = {list: "a list", str: "a text", type(None): "null"}
        raise InvalidRow(f"a row is {kinds.get(type(value), 'a number')}, not an object")
    if "\\u" in decoded and (key := _find_surrogate(value)) is not None:
        raise InvalidRow(f"`{key}` contains half of a surrogate pair, which is not Unicode")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise ValueError(f"duplicate key {json.dumps(counts.most_common(1)[0][0])}")
    return value


def _find_surrogate(row: dict[str, Any]) -> str | None:
    """Return the column whose texts or keys cannot be encoded."""
    for key, value in row.items():
        try:
            json.dumps([key, value], ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            return json.dumps(key)[1:-1]
    return None
