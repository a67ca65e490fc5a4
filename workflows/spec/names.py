"""Names as Kubernetes takes them, and the placeholders of example files."""

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
    """Five letters that make a name of its own; of those of Kubernetes' ``generateName``: no vowels, so no words."""
    import secrets

    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))


def is_label(text: str) -> bool:
    """Whether ``text`` is a DNS-1123 label."""
    return bool(_LABEL.fullmatch(text))


def is_subdomain(text: str) -> bool:
    """Whether ``text`` is a DNS-1123 subdomain, as names of Secrets, ConfigMaps and claims are."""
    return len(text) <= 253 and all(is_label(part) for part in text.split("."))


def is_label_value(text: str) -> bool:
    """Whether ``text`` can be the value of a label."""
    return bool(_LABEL_VALUE.fullmatch(text))


def is_label_key(text: str) -> bool:
    """Whether ``text`` can be the key of a label: a name, and perhaps a domain before it."""
    domain, slash, name = text.rpartition("/")
    return bool(name) and is_label_value(name) and (is_subdomain(domain) if slash else True)


def placeholders(text: str) -> list[str]:
    """Words like ``ACR_REPO_HERE``, which KAITO's examples leave for the user to replace."""
    return [match[0] for match in _PLACEHOLDER.finditer(text)]


def without_placeholders(text: str) -> str:
    """``text`` with a plain word for each placeholder, so that the rest can be checked."""
    return _PLACEHOLDER.sub("placeholder", text)
