"""Answers of base model and adapter: side by side in tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from steps.runtime import terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MIN_WIDTH = 60
"""Columns of a terminal below which two answers do not fit next to each other."""
MAX_WIDTH = 120
"""Columns of the table on a wider terminal."""


@dataclass(frozen=True)
class Sample:
    """A held-out question, and what base model and adapter answered in the evaluation."""

    question: str
    base: str
    adapter: str


def print_answers(
    question: str, base: str, adapter: str, stream: TextIO | None = None, samples: Sequence[Sample] = ()
) -> None:
    """Print what base model and adapter answered to a question, and in tables to held-out questions.

    Args:
        question: the question; empty: unknown.
        base: answer of the base model; may be empty.
        adapter: answer of the adapter, or of the base model if nothing else is served; may be empty.
        stream: output; default: standard output.
        samples: held-out questions with their answers, for a terminal that is wide enough.
    """
    stream = stream or sys.stdout
    question, base, adapter = (terminal.escape(text) for text in (question, base, adapter))
    console = _wide_console(stream) if base and adapter else None
    if console:
        width = min(console.width, MAX_WIDTH)
        console.print()
        console.print(_table(question, base, adapter, width))
        for sample in samples:
            heading, left, right = map(terminal.escape, (sample.question, sample.base, sample.adapter))
            console.print(_table(heading, left, right, width))
        return
    for label, text in (("question", question), ("base model", base), ("adapter", adapter)):
        if text and (base or adapter):
            print(f"\n{label + ':':11} {text}", file=stream)


def _wide_console(stream: TextIO) -> Console | None:
    """Return the terminal of the stream; None if it is none, or has no room for two columns."""
    if not stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=stream, highlight=False)
    return None if console.is_dumb_terminal or console.width < MIN_WIDTH else console


def _table(question: str, base: str, adapter: str, width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(question, style="bold") if question else None, title_justify="left", width=width, padding=(0, 1)
    )
    for header, style in (("base model", "dim"), ("adapter", "")):
        table.add_column(header, style=style, header_style="bold", ratio=1, overflow="fold")
    table.add_row(Text(base.strip()), Text(adapter.strip()))
    return table
