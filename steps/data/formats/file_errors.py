"""Errors of one data file, collected so that all are reported together."""

from __future__ import annotations

from steps.runtime.errors import BadInput

MAX_ERRORS = 20
"""Reading stops after this number of errors."""
MAX_ROW_BYTES = 16 << 20
"""Maximum size of a row in a text format: no context window is longer, and rows are parsed in memory."""


class TooManyErrors(Exception):
    """``MAX_ERRORS`` are collected."""


class FileErrors:
    """Errors of a file called ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.fixes: list[str] = []

    def add(self, line: int | None, message: str, fix: str, row: int | None = None) -> None:
        """Record an error at a line (counted from 1) and a row (counted from 0).

        Raises:
            TooManyErrors: the limit is reached.
        """
        place = f"{self.name}:{line}" if line is not None else self.name
        self.lines.append(f"{place}: {f'row {row}: ' if row is not None else ''}{message}")
        self.fixes.append(fix)
        if len(self.lines) >= MAX_ERRORS:
            self.lines.append(f"{self.name}: reading stopped after {MAX_ERRORS} errors")
            raise TooManyErrors

    def raise_all(self) -> None:
        """Raise the collected errors.

        Raises:
            BadInput: there are errors.
        """
        if self.lines:
            raise BadInput("\n  ".join(self.lines), "; ".join(dict.fromkeys(self.fixes)))


def row_too_large(size: int | None = None) -> tuple[str, str]:
    """Return message and fix of a row that exceeds the limit."""
    shown = f"a row of {size / 1e6:.0f} MB" if size else "a row"
    return f"{shown} exceeds the limit of {MAX_ROW_BYTES >> 20} MB", "split the row"
