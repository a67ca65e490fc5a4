"""Names as Kubernetes takes them, and the placeholders of example files."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PLACEHOLDER = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)*_HERE")
LABEL_RULE = "use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
SUBDOMAIN_RULE = "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"


def is_label(text: str) -> bool:
    """Whether ``text`` is a DNS-1123 label."""
    return bool(_LABEL.fullmatch(text))


def is_subdomain(text: str) -> bool:
    """Whether ``text`` is a DNS-1123 subdomain, as names of Secrets, ConfigMaps and claims are."""
    return len(text) <= 253 and all(is_label(part) for part in text.split("."))


def placeholders(text: str) -> list[str]:
    """Words like ``ACR_REPO_HERE``, which KAITO's examples leave for the user to replace."""
    return [match[0] for match in _PLACEHOLDER.finditer(text)]


def without_placeholders(text: str) -> str:
    """``text`` with a plain word for each placeholder, so that the rest can be checked."""
    return _PLACEHOLDER.sub("placeholder", text)
