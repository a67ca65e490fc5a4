"""Write an Argo document as text that ``argo`` and ``kubectl`` read back exactly.

Hera's ``to_yaml`` is not used for text that users submit: PyYAML leaves strings such as ``2e-4`` or ``1234e56`` bare,
which Go's YAML reader takes for numbers, and Hera's folding of ``{{`` breaks unbalanced braces.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

# What Go's reader (go-yaml, YAML 1.1 and 1.2 mixed) would not read as a string, and PyYAML does not quote by itself.
_NOT_A_STRING_IN_GO = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"  # floats, integers, 2e-4, 1_000
    r"|[-+]?0[xX][0-9a-fA-F_]+|[-+]?0[oO]?[0-7_]+|[-+]?0[bB][01_]+"  # other bases
    r"|[yYnN]|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"  # YAML 1.1 booleans and base 60
)


def to_json(document: dict[str, Any]) -> str:
    """The document as indented JSON, which ``argo submit`` takes and no reader misreads."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def to_yaml(*documents: dict[str, Any]) -> str:
    """Documents as YAML in block style, every string that a reader could take for something else in double quotes."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=10**9, allow_unicode=True, default_flow_style=False
    )


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _NOT_A_STRING_IN_GO.fullmatch(text) or _has_odd_characters(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _has_odd_characters(text: str) -> bool:
    """Line breaks other than ``\\n`` and characters that readers fold, strip or refuse: always escaped."""
    return any(not (character.isprintable() or character == "\n") for character in text) or text != text.strip()


_Dumper.add_representer(str, _represent_text)
