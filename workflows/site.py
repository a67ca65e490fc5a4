"""The site profile: what a platform team fixes once for all Workspaces (namespace, images, storage, accounts).

Found by ``--site FILE``, else ``$ARGOTUNE_SITE``, else ``~/.argotune/site.yaml`` where that exists.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workflows.errors import InvalidInput, Problem
from workflows.plan import Plan

# The part of a plan that a site may set; everything else is the Workspace's business.
FIELDS = {
    path
    for path in Plan.paths()
    if path in ("namespace", "serviceAccount") or path.split(".")[0] in ("images", "storage")
}


def load(file: str | None) -> dict[str, Any]:
    """Read a site profile into ``{plan path: value}``; empty when there is none.

    Raises:
        InvalidInput: naming every field that is unknown or has a wrong type.
    """
    path = _find(file)
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(Problem(f"cannot read the site profile: {error}", file=str(path))) from error
    if not isinstance(content, dict):
        raise InvalidInput(
            Problem("a site profile is a map", file=str(path), fix="namespace: argo, images: {control: ...}")
        )
    values = _flatten(content)
    problems = [
        Problem("unknown field", path=name, file=str(path), fix=f"known: {', '.join(sorted(FIELDS))}")
        for name in values
        if name not in FIELDS
    ]
    if not problems:
        problems = _wrong_types(values, path)
    if problems:
        raise InvalidInput(problems)
    return values


def _find(file: str | None) -> Path | None:
    given = file or os.environ.get("ARGOTUNE_SITE")
    if given:
        return Path(given)
    usual = Path.home() / ".argotune" / "site.yaml"
    return usual if usual.is_file() else None


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{prefix}{key}"
        flat |= _flatten(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat


def _wrong_types(values: dict[str, Any], path: Path) -> list[Problem]:
    problems = []
    for name, value in values.items():
        try:
            Plan.check_value(name, value)
        except ValidationError as error:
            problems.append(Problem(error.errors()[0]["msg"], path=name, file=str(path)))
    return problems
