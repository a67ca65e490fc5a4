"""Placeholders of documentation that were not replaced: ``<YOUR_ACR>``, ``YOUR_SECRET``, ``CHANGE-ME``.

Those of KAITO's own example files (``ACR_REPO_HERE``) are warnings until a run pushes to them; see ``names.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from workflows.field_path import join
from workflows.spec.findings import Findings

_PLACEHOLDER = re.compile(
    r"<[A-Za-z][\w .-]*>"
    r"|(?<![A-Za-z0-9])YOUR[_-](?:[A-Z0-9]+[_-])*[A-Z0-9]+"
    r"|(?<![\w.-])(?:change|replace)[-_]?me(?![\w.-])"
    r"|(?<![\w.-])(?:CHANGE|REPLACE)[-_]?ME(?![\w.-])"
)
_IN_IMAGES = re.compile(
    r"^(?:your[-_](?:acr|container-registry|registry|repo|image|org|name|user)[a-z]*|example\.com)(?=[./:])"
)
"""Further placeholders at the start of an image reference."""
_FREE = (
    *("pipeline.rollout.question", "pipeline.data.columns", "pipeline.data.inputs", "metadata.annotations"),
    *("inference.template", "spec.template.inference.template", "status"),
)
"""Fields whose text is the user's own, or that are not read."""
FIXES = {
    "image": "write the reference of your image",
    "instanceType": "write an instance type, or remove it to use existing nodes",
    "preferredNodes": "kubectl get nodes lists them",
    "preset.name": "argotune presets lists the models",
    "urls": "write the address of your data",
}
"""Fix by the last names of a field's path."""


def find(text: str, *, is_image: bool = False) -> str:
    """Return the first placeholder in a text; "" if there is none."""
    found = _PLACEHOLDER.search(text) or (_IN_IMAGES.search(text) if is_image else None)
    return found[0] if found else ""


def check(value: Any, path: str, findings: Findings) -> None:
    """Report every placeholder; other errors of its field are then not reported."""
    _walk(value, path, lambda place, text: _check_text(place, text, findings))


def _walk(value: Any, path: str, visit: Callable[[str, str], None]) -> None:
    if path in _FREE:
        return
    if isinstance(value, str):
        visit(path, value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            _walk(inner, join(path, str(key)), visit)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _walk(inner, join(path, index), visit)


def _check_text(path: str, text: str, findings: Findings) -> None:
    field = re.sub(r"\[\d+\]", "", path)
    if word := find(text, is_image=field.endswith(".image")):
        fix = next((fix for end, fix in FIXES.items() if field.endswith(f".{end}")), "write your value")
        findings.reject(path, f"{word} is a placeholder", fix)
