"""Write an Argo document as text that ``argo`` and ``kubectl`` read back exactly.

Neither Hera's ``to_yaml`` nor PyYAML's writer is used for text that users submit: both leave strings such as ``2e-4``
or ``1234e56`` bare, which Go's YAML reader takes for numbers; Hera's folding of ``{{`` breaks unbalanced braces; and
PyYAML takes several times as long as compiling does.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

# What is no string in bare form to Go's reader (go-yaml, YAML 1.1 and 1.2 mixed) or Python's.
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"  # floats, integers, 2e-4
    r"|[-+]?0[xX][0-9a-fA-F]+|[-+]?0[oO]?[0-7]+|[-+]?0[bB][01]+"  # other bases
    r"|[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"  # base 60
    r"|[yYnN]"  # YAML 1.1 booleans that PyYAML doesn't know
)
_OTHER = re.compile(
    r"true|yes|on|false|no|off|null|~|=|<<|[-+]?\.inf|\.nan|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*|---.*|\.\.\..*",
    re.IGNORECASE,
)
# Begins with nothing that means something, has no comment in it, and nothing that makes it a key.
_BARE = re.compile(r"(?:[^\s\-?:,\[\]{}#&*!|>'\"%@`]|[-?:](?=\S))(?:[^:#]|:(?=\S)|(?<=\S)#)*(?<!\s)")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def to_json(document: dict[str, Any]) -> str:
    """The document as indented JSON, which ``argo submit`` takes and no reader misreads."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_yaml(*documents: dict[str, Any]) -> str:
    """Documents as YAML in block style, every string that a reader could take for something else in quotes."""
    return "---\n".join("\n".join(_lines(document)) + "\n" for document in documents)


def _lines(document: dict[str, Any]) -> list[str]:
    if not document:
        return ["{}"]
    lines: list[str] = []
    _write(document, "", lines)
    return lines


def _write(value: Any, indent: str, lines: list[str]) -> None:
    """Add the lines of a map or list that has something in it."""
    deeper = f"{indent}  "
    if isinstance(value, dict):
        for key, item in value.items():
            if item and isinstance(item, dict | list):
                lines.append(f"{indent}{_scalar(key)}:")
                _write(item, deeper, lines)
            else:
                lines.append(f"{indent}{_scalar(key)}: {_scalar(item)}")
        return
    for item in value:
        first = len(lines)
        if item and isinstance(item, dict | list):
            _write(item, deeper, lines)
            lines[first] = f"{indent}- {lines[first][len(deeper) :]}"
        else:
            lines.append(f"{indent}- {_scalar(item)}")


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    text = json.dumps(value)  # also of an empty map or list
    # YAML 1.1 wants a point in a float.
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "." not in text else text


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    if not text.isprintable():
        return '"' + "".join(_escaped(character) for character in text) + '"'
    if _NUMBER.fullmatch(text.replace("_", "")):  # Go's reader strikes all of them out
        return f'"{text}"'
    if _BARE.fullmatch(text) and not _OTHER.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
