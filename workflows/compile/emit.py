"""Write an Argo document as text that ``argo`` and ``kubectl`` parse exactly.

Hera's ``to_yaml`` and PyYAML are not used for manifests: both leave strings such as ``2e-4`` or ``1234e56`` unquoted,
which Go's YAML parser reads as numbers. Hera's folding of ``{{`` breaks unbalanced braces, and PyYAML takes several
times as long as the compilation.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

# Plain scalars that are no strings to Go's parser (go-yaml mixes YAML 1.1 and 1.2) or Python's.
_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"  # floats, integers, 2e-4
    r"|[-+]?0[xX][0-9a-fA-F]+|[-+]?0[oO]?[0-7]+|[-+]?0[bB][01]+"  # other bases
    r"|[-+]?[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?"  # base 60
    r"|[yYnN]"  # YAML 1.1 booleans that PyYAML does not support
)
_OTHER = re.compile(
    r"true|yes|on|false|no|off|null|~|=|<<|[-+]?\.inf|\.nan|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*|---.*|\.\.\..*",
    re.IGNORECASE,
)
# Has no indicator at its start, no comment, and no colon that would make it a key.
_PLAIN = re.compile(r"(?:[^\s\-?:,\[\]{}#&*!|>'\"%@`]|[-?:](?=\S))(?:[^:#]|:(?=\S)|(?<=\S)#)*(?<!\s)")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def to_json(document: dict[str, Any]) -> str:
    """Return the document as indented JSON, which ``argo submit`` accepts and every parser reads alike."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_yaml(*documents: dict[str, Any]) -> str:
    """Return documents as YAML in block style, with quotes around every string that a parser could misread."""
    return "---\n".join("\n".join(_lines(document)) + "\n" for document in documents)


def _lines(document: dict[str, Any]) -> list[str]:
    if not document:
        return ["{}"]
    lines: list[str] = []
    _write(document, "", lines)
    return lines


def _write(value: Any, indent: str, lines: list[str]) -> None:
    """Append the lines of a mapping or list that is not empty."""
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
    text = json.dumps(value)  # also an empty mapping or list
    # YAML 1.1 requires a point in a float.
    return text.replace("e", ".0e", 1) if isinstance(value, float) and "." not in text else text


@lru_cache(maxsize=4096)
def _text(text: str) -> str:
    if not text.isprintable():
        return '"' + "".join(_escaped(character) for character in text) + '"'
    if _NUMBER.fullmatch(text.replace("_", "")):  # Go's parser ignores all underscores
        return f'"{text}"'
    if _PLAIN.fullmatch(text) and not _OTHER.fullmatch(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if character.isprintable() else f"\\U{ord(character):08x}"
