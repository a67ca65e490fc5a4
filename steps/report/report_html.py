"""Pieces of the report's HTML: text that is escaped, figures for people, tables and sections."""

from __future__ import annotations

import re
from html import escape

from steps.report.report_data import text

MAX_TEXT_LENGTH = 4000
DASH = "\N{EN DASH}"


def shown(value: object, longest: int = MAX_TEXT_LENGTH) -> str:
    """A value as HTML: escaped, without control characters, and cut where it is very long."""
    plain = text(value)
    if len(plain) > longest:
        plain = f"{plain[:longest]} … ({len(plain) - longest} more characters)"
    plain = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", plain.replace("\r\n", "\n"))
    return escape(plain)


def figure(value: float | None) -> str:
    """A number with four significant digits, a large one whole; or a dash."""
    if value is None:
        return DASH
    if (value == round(value) or abs(value) >= 1e4) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float | None) -> str:
    """Seconds for people: ``8.4 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if seconds is None or seconds < 0:
        return DASH
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def percent(ratio: float | None) -> str:
    """A share as ``16.2 %``."""
    return DASH if ratio is None else f"{100 * ratio:.3g} %"


def section(title: str, content: str) -> str:
    """A part of the page, with an anchor of its title."""
    anchor = re.sub(r"\W+", "-", title.lower())
    return f"<section id={anchor}><h2>{title}</h2>{content}</section>"


def none(sentence: str) -> str:
    """A sentence that says what is not there."""
    return f"<p class=none>{sentence}</p>"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table; first column text, the others numbers."""

    def line(kind: str, cells: list[str]) -> str:
        return "".join(
            f"<{kind}{' class=n' if index else ''}>{shown(cell, 500)}</{kind}>" for index, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{line('th', head)}</tr></thead><tbody>{body}</tbody></table>"
