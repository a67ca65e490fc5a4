"""The text of a file: UTF-8 with line ends that kubectl reads too."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from workflows.errors import InvalidInput, Problem

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")


def read(path: str | Path, file: str) -> str:
    """Return the text of a file (``-``: standard input), which ``file`` names in messages.

    Raises:
        InvalidInput: The file cannot be read, is not UTF-8, or has line ends of classic Mac OS.
    """
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(Problem(f"cannot be read: {reason}", file=file, fix="check the path")) from None
    text = _decode(content, file)
    if found := _CARRIAGE_RETURN.search(text):
        # YAML allows them, but kubectl splits documents at line feeds and would ignore all but the first.
        line = text.count("\n", 0, found.start()) + 1
        fix = "save it with line ends LF or CRLF, for example: tr '\\r' '\\n'"
        raise InvalidInput(Problem("a line ends with CR without LF", file=file, line=line, fix=fix))
    return text


def label(path: str | Path) -> str:
    """Return the name of a file in messages."""
    return "<stdin>" if str(path) == "-" else str(path)


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file; standard input (``-``) can be read again afterwards."""
    if str(path) != "-":
        return Path(path).read_bytes()
    content = sys.stdin.buffer.read()
    sys.stdin = io.TextIOWrapper(io.BytesIO(content))
    return content


def _decode(content: bytes, file: str) -> str:
    if content.startswith(UTF_16):
        fix = "save it as UTF-8, for example: iconv -f UTF-16 -t UTF-8"
        raise InvalidInput(Problem("is not UTF-8 text but UTF-16", file=file, line=1, fix=fix))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 text: {error.reason}"
        raise InvalidInput(Problem(message, file=file, line=line, fix="save it as UTF-8")) from None
