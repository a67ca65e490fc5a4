"""Signatures of URLs: parameters of the query that grant access for some time, and do not select the file."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

# Azure's SAS; CloudFront, and the older signatures of AWS and Google.
_AZURE = "sig sv ss srt sp se st spr sr sip si sdd ses skoid sktid skt ske sks skv saoid suoid scid"
_OLDER = "signature awsaccesskeyid googleaccessid expires policy key-pair-id hash-algorithm"
_SIGNED = {
    "sig": {*_AZURE.split()},
    "signature": {*_OLDER.split()},
    "token": {"token"},
    "access_token": {"access_token"},
}
"""Parameters that a signature covers or renews, by the name of the signature."""
_PREFIXES = {"x-amz-signature": "x-amz-", "x-goog-signature": "x-goog-"}
"""Beginning of the names of such parameters, by the name of the signature."""
# In a text with several URLs: up to white space, a quote or a fragment.
_QUERY = re.compile(r"""(?<=://)([^\s"?#]*)\?([^\s"#\\]+)""")


def is_signature(name: str) -> bool:
    """Return True if a query parameter of this name grants access to the URL by itself."""
    return name.lower() in _SIGNED.keys() | _PREFIXES.keys()


def without_signatures(value: Any) -> Any:
    """Return a copy of plain data (maps, lists, scalars) whose URLs have no signature, nor what is signed with it.

    Two URLs that differ only by a renewed signature become equal; ``?file=1`` and ``?file=2`` stay different.
    """
    if isinstance(value, dict):
        return {without_signatures(name): without_signatures(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_signatures(inner) for inner in value]
    return _QUERY.sub(_remove, value) if isinstance(value, str) and "://" in value else value


def _remove(match: re.Match[str]) -> str:
    pairs = match[2].split("&")
    names = {_name(pair) for pair in pairs}
    removed = set().union(*(signed for name, signed in _SIGNED.items() if name in names))
    prefixes = tuple(prefix for name, prefix in _PREFIXES.items() if name in names)
    kept = [pair for pair in pairs if _name(pair) not in removed and not _name(pair).startswith(prefixes)]
    if len(kept) == len(pairs):
        return match[0]
    return f"{match[1]}?{'&'.join(kept)}" if kept else match[1]


def _name(pair: str) -> str:
    return unquote(pair.partition("=")[0]).lower()
