"""The site profile: what a platform team fixes once for all Workspaces (namespace, images, storage, accounts).

Found by ``--site FILE``, else ``$ARGOTUNE_SITE``, else ``~/.argotune/site.yaml`` where that exists.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import presets
from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan

# The part of a plan that a site may set; everything else is the Workspace's business.
FIELDS = {
    path
    for path in Plan.paths()
    if path in ("namespace", "serviceAccount", "serviceAccounts", "azureWorkloadIdentity")
    or path.split(".")[0] in ("images", "storage", "semaphore", "nodes", "artifacts")
}


def load(file: str | None) -> dict[str, Any]:
    """Read a site profile into ``{plan path: value}``; empty when there is none.

    Raises:
        InvalidInput: naming every field that is unknown or has a wrong type.
    """
    path = _find(file)
    if path is None:
        return {}
    content = _read(path)
    values = _flatten({key: value for key, value in content.items() if key != "prices"})
    problems = [
        Problem("unknown field", path=name, file=str(path), fix=f"known: {', '.join(sorted({*FIELDS, 'prices'}))}")
        for name in values
        if name not in FIELDS
    ]
    if not problems:
        problems = _wrong_types(values, path)
    problems += _wrong_prices(content.get("prices"), path)
    if problems:
        raise InvalidInput(problems)
    return values


def prices(file: str | None) -> presets.Prices:
    """What machine sizes cost: the presets' table, with the ``prices: {SKU: USD an hour}`` of the site profile.

    Raises:
        InvalidInput: as ``load``.
    """
    path = _find(file)
    own = (_read(path).get("prices") if path else None) or {}
    if path and (problems := _wrong_prices(own, path)):
        raise InvalidInput(problems)
    return presets.prices().with_regular_prices({presets.sku(name).name: float(usd) for name, usd in own.items()})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        raise InvalidInput(Problem(f"cannot read the site profile: {error}", file=str(path))) from error
    if not isinstance(content, dict):
        raise InvalidInput(
            Problem("a site profile is a map", file=str(path), fix="namespace: argo, images: {control: ...}")
        )
    return content


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
        flat |= _flatten(value, f"{path}.") if isinstance(value, dict) and path not in FIELDS else {path: value}
    return flat


def _wrong_types(values: dict[str, Any], path: Path) -> list[Problem]:
    problems = []
    for name, value in values.items():
        try:
            Plan.check_value(name, value)
        except ValidationError as error:
            problems.append(Problem(error.errors()[0]["msg"].removeprefix("Value error, "), path=name, file=str(path)))
    return problems


def _wrong_prices(prices: Any, path: Path) -> list[Problem]:
    if prices is None:
        return []
    if not isinstance(prices, dict):
        return [Problem("must be a map", path="prices", file=str(path), fix="prices: {Standard_NC24ads_A100_v4: 3.5}")]
    problems = []
    for name, usd in prices.items():
        where = f"prices.{name}"
        try:
            presets.sku(str(name))
        except presets.UnknownSku as error:
            fix = f"did you mean {error.near[0]}?" if error.near else "write the name of an Azure VM size with GPUs"
            problems.append(Problem("unknown machine size", path=where, file=str(path), fix=fix))
        if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 < usd < float("inf"):
            problems.append(Problem(f"not a price: {usd!r}", path=where, file=str(path), fix="write USD an hour"))
    return problems
