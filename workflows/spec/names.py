"""Valid Kubernetes names, and placeholders in example files."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PLACEHOLDER = re.compile(r"[A-Z0-9]+(_[A-Z0-9]+)*_HERE")
LABEL_RULE = "use at most 63 lower-case letters, digits and '-', beginning and ending with a letter or digit"
SUBDOMAIN_RULE = "use lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit"
LABELS_RULE = (
    "use at most 63 letters, digits, '-', '_' and '.' for name and value; a name may have a domain/ before it"
)


def random_suffix() -> str:
    """Return five random letters of the alphabet of Kubernetes' ``generateName`` (no vowels, so no words)."""
    import secrets

    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def is_label(text: str) -> bool:
    """Return True if ``text`` is a DNS-1123 label."""
    return bool(_LABEL.fullmatch(text))


def is_subdomain(text: str) -> bool:
    """Return True if ``text`` is a DNS-1123 subdomain, required for names of Secrets, ConfigMaps and claims."""
    return len(text) <= 253 and all(is_label(part) for part in text.split("."))


def is_label_value(text: str) -> bool:
    """Return True if ``text`` is a valid label value."""
    return bool(_LABEL_VALUE.fullmatch(text))


def is_label_key(text: str) -> bool:
    """Return True if ``text`` is a valid label key: a name with an optional domain prefix."""
    domain, slash, name = text.rpartition("/")
    return bool(name) and is_label_value(name) and (is_subdomain(domain) if slash else True)


def placeholders(text: str) -> list[str]:
    """Return placeholders such as ``ACR_REPO_HERE`` in KAITO's examples."""
    return [match[0] for match in _PLACEHOLDER.finditer(text)]


def without_placeholders(text: str) -> str:
    """Replace each placeholder by a plain word, so that the rest can be validated."""
    return _PLACEHOLDER.sub("placeholder", text)
