"""Redaction of values that look like secrets.

No secret is passed to a step that displays data; this is the second line of defense, for secrets in the wrong place
(a token in a URL, a password among training arguments).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

HIDDEN = "(not shown)"

# Looked for in keys without their dashes and underscores, so that apiKey, api-key and API_KEY are one.
_SECRET_KEY = re.compile(
    r"token(?!i[sz])|secret|passw|passphrase|credential|authorization|bearer|cookie|connectionstring"
    r"|(?:api|private|access|account|shared|signing)key"
)
_SECRET_IN_TEXT = [
    # https://user:password@host
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{HIDDEN}@"),
    # ?sig=... of a storage URL, HF_TOKEN=... of a command
    (
        re.compile(
            r"(?i)((?:[?&;]|\b)[\w.-]*(?:token|secret|passw|credential|api[_-]?key|(?<=[?&;])sig|signature)[\w.-]*=)"
            r"[^&;\s\"'<>]+"
        ),
        rf"\1{HIDDEN}",
    ),
    # "password": "..." of JSON inside a text
    (
        re.compile(r'(?i)("[^"\n]{0,60}(?:token(?!i[sz])|secret|passw|api_?key)[^"\n]{0,60}"\s*:\s*)"[^"\n]*"'),
        rf'\1"{HIDDEN}"',
    ),
    (re.compile(r"(?i)\b(bearer\s+|authorization:\s*\w+\s+)[\w.~+/=-]{12,}"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,})"), HIDDEN),
]
_WORDS = ("://", "token", "secret", "passw", "credential", "api", "sig", "bearer", "authorization", "hf_", "gh")
_QUERY = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s\"'<>?#]*\?)[^\s\"'<>#]+")
# A text that begins with a URL, whose path can have spaces and quotes.
_WHOLE_URL = re.compile(r"(?i)\A(\s*[a-z][a-z0-9+.-]*://[^?#\n]*\?)[^#\n]+")


def redact(value: Any) -> Any:
    """Return a copy of plain data (maps, lists, scalars) without values that look like secrets or queries of URLs.

    A value is hidden if its key names a secret, or if it has the form of one. Any parameter of a query can grant
    access. Counts such as ``max_new_tokens`` remain, and so does the ``origin`` of a value.
    """
    return _redact(value, _redact_text, hide=False)


def redact_secrets(value: Any) -> Any:
    """Return a copy like that of ``redact``, with those parameters of queries that do not look like secrets."""
    return _redact(value, _redact_secrets, hide=False)


def _redact(value: Any, redact_text: Callable[[str], str], *, hide: bool, key: str = "") -> Any:
    if isinstance(value, dict):
        # {"name": "HF_TOKEN", "value": "..."}, as environment variables are written
        names_secret = _is_secret(str(value.get("name", "")))
        redacted = {}
        for name, inner in value.items():
            hides = _hides(str(name), hide, names_secret)
            # {"value": ..., "origin": ...}, as settings of a plan are written, has the key of the setting.
            redacted[name] = _redact(inner, redact_text, hide=hides, key=key if name == "value" else str(name))
        return redacted
    if isinstance(value, list):
        return [_redact(inner, redact_text, hide=hide, key=key) for inner in value]
    if hide and not _is_empty(value) and not _is_count(key, value):
        return HIDDEN
    return redact_text(value) if isinstance(value, str) else value


def _hides(name: str, hidden: bool, names_secret: bool) -> bool:
    if name == "origin":
        return False
    return hidden or _is_secret(name) or (names_secret and name == "value")


def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(re.sub(r"[^a-z0-9]", "", key.lower())) is not None


def _is_count(key: str, value: Any) -> bool:
    return "tokens" in key.lower() and re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?", str(value)) is not None


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or isinstance(value, bool)


def _redact_text(text: str) -> str:
    return _redact_secrets(_QUERY.sub(rf"\1{HIDDEN}", _WHOLE_URL.sub(rf"\1{HIDDEN}", text)))


def _redact_secrets(text: str) -> str:
    if text.isascii():
        # Faster than the patterns, each of which needs one of these words.
        lower = text.lower()
        if not any(word in lower for word in _WORDS):
            return text
    for pattern, instead in _SECRET_IN_TEXT:
        text = pattern.sub(instead, text)
    return text
