"""Label and field selectors of the Kubernetes API (its "Labels and Selectors" and "Field Selectors")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kubernetes_server_resources import Object, Refused

_REQUIREMENT = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<no>[\w./-]+)|(?P<key>[\w./-]+)\s*"
    r"(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)|\s(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?)\s*(?:,|$)"
)


def matches(document: Object, labels: str, fields: str) -> bool:
    """Return True if both selectors match an object; an empty selector matches all."""
    there = document["metadata"].get("labels") or {}
    return _labels(labels, there) and all(_field(part, document) for part in fields.split(",") if part)


def _labels(selector: str, labels: Mapping[str, str]) -> bool:
    place = 0
    while place < len(selector):
        found = _REQUIREMENT.match(selector, place)
        if not found:
            raise Refused(400, "BadRequest", f"unable to parse requirement: {selector[place:]!r}")
        place = found.end()
        if not _label(found, labels):
            return False
    return True


def _label(part: re.Match[str], labels: Mapping[str, str]) -> bool:
    if part["absent"]:
        return part["no"] not in labels
    value = labels.get(part["key"])
    if part["set"]:
        values = {word.strip() for word in part["values"].split(",")}
        return (value in values) if part["set"] == "in" else (value not in values)
    if part["op"]:
        return (value != part["value"]) if part["op"] == "!=" else (value == part["value"])
    return value is not None


def _field(part: str, document: Object) -> bool:
    found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", part)
    if not found:
        raise Refused(400, "BadRequest", f"invalid selector: {part!r}")
    path, operator, values = found.groups()
    value: Any = document
    for word in path.split("."):
        value = (value or {}).get(word)
    return (str(value or "") == values) != (operator == "!=")
