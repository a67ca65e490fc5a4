"""URLs as they can be printed and stored. Imports no heavy library, so that validate can use it."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit, urlunsplit

MAX_CHARACTERS = 4000
"""More than any URL of a server that also browsers use; a redirect can have tens of thousands."""


def shown(url: str) -> str:
    """Return a URL as it can be printed and stored: without user, password, fragment and values of its query.

    A longer one than ``MAX_CHARACTERS`` is cut.
    """
    text = _without_secrets(url)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."


def _without_secrets(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("#")[0].partition("?")[0]
    query = "&".join(_masked(pair) for pair in parts.query.split("&")) if parts.query else ""
    return urlunsplit(SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def _masked(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}=***" if equals else "***"
