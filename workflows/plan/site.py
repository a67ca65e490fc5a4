"""The site profile: values that a platform team sets once for all Workspaces (namespace, images, storage, accounts).

Its file is ``--site FILE``, else ``$ARGOTUNE_SITE``, else ``~/.argotune/site.yaml`` if that exists.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

import presets
from steps.runtime import validation_messages
from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan
from workflows.plan.overrides import check_value
from workflows.spec import source


class SiteSku(presets.Sku):
    """An instance type of the site profile."""

    model_config = ConfigDict(alias_generator=to_camel)

    cloud: str = "site"
    gpu: str = "GPU"


FIELDS = {
    path
    for path in Plan.paths()
    if path in ("namespace", "serviceAccount", "serviceAccounts", "azureWorkloadIdentity", "pods", "queue")
    or path.split(".")[0] in ("images", "storage", "semaphore", "nodes", "artifacts", "budget")
}
"""Paths of a plan that a site can set."""
OTHER_FIELDS = ("instanceTypes", "prices", "presets")
"""Tables of a site that are not part of a plan."""


def load(file: str | None) -> dict[str, Any]:
    """Return the values of a site profile by plan path; empty if there is no profile.

    Raises:
        InvalidInput: with every field that is unknown, or has a value of a wrong type or out of bounds.
    """
    path = _find(file)
    if path is None:
        return {}
    content = _read(path)
    values = _flatten({key: value for key, value in content.items() if key not in OTHER_FIELDS})
    problems = [
        Problem(
            "unknown field", path=name, file=str(path), fix=f"known: {', '.join(sorted({*FIELDS, *OTHER_FIELDS}))}"
        )
        for name in values
        if name not in FIELDS
    ]
    if not problems:
        problems = [problem for name, value in values.items() for problem in check_value(name, value, str(path))]
    problems += _wrong_prices(content.get("prices"), path)
    if problems:
        raise InvalidInput(problems)
    return values


def instance_types(file: str | None) -> list[presets.Sku]:
    """Return the instance types that a profile adds: ``instanceTypes: [{name, gpus, gpuMemoryGib, ...}]``.

    Raises:
        InvalidInput: with every entry that is invalid.
    """
    path = _find(file)
    entries = (_read(path).get("instanceTypes") if path else None) or []
    fix = "instanceTypes: [{name: gpu-large, gpus: 2, gpuMemoryGib: 80, gpu: NVIDIA A100, computeCapability: 8.0}]"
    if not isinstance(entries, list):
        raise InvalidInput(Problem("must be a list", path="instanceTypes", file=str(path), fix=fix))
    sizes, problems = [], []
    for index, entry in enumerate(entries):
        place = f"instanceTypes[{index}]"
        try:
            sizes.append(SiteSku.model_validate(entry))
        except ValidationError as error:
            for details in error.errors():
                message = validation_messages.describe(details)
                name = ".".join([place, *map(str, details["loc"])])
                problems.append(Problem(message, path=name, file=str(path), fix=f"correct it, as in {fix}"))
    if problems:
        raise InvalidInput(problems)
    return list(sizes)


def prices(file: str | None) -> presets.Prices:
    """Return prices of instance types: the presets' table, updated by ``prices: {SKU: USD per hour}`` of the profile.

    Raises:
        InvalidInput: as ``load``.
    """
    path = _find(file)
    own_prices = (_read(path).get("prices") if path else None) or {}
    if path and (problems := _wrong_prices(own_prices, path)):
        raise InvalidInput(problems)
    own = {presets.sku(name).name: float(usd) for name, usd in own_prices.items()}
    return presets.prices().with_regular_prices(own)


def presets_folder(file: str | None) -> Path | None:
    """Return the directory with the site's presets (``presets: DIRECTORY``, relative to the profile); None without.

    Raises:
        InvalidInput: it is not a directory, or the profile cannot be read.
    """
    path = _find(file)
    value = _read(path).get("presets") if path else None
    if path is None or value is None:
        return None
    folder = path.parent / value if isinstance(value, str) and value else None
    if folder is None or not folder.is_dir():
        fix = "set the path of a directory with files of argotune presets add -o FILE"
        raise InvalidInput(Problem(f"{value!r} is not a directory", path="presets", file=str(path), fix=fix))
    return folder


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        fix = "write a YAML file that is readable"
        raise InvalidInput(Problem(f"cannot read the site profile: {reason}", file=str(path), fix=fix)) from None
    found, problems = source.documents(text, str(path))
    if problems:
        raise InvalidInput([replace(problem, fix=problem.fix or "correct the YAML") for problem in problems])
    content = (found[0].value or {}) if found else {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInput(Problem("must be a mapping", file=str(path), fix="namespace: argo, images: {control: ...}"))
    return content


def _find(file: str | None) -> Path | None:
    if chosen := file or os.environ.get("ARGOTUNE_SITE"):
        return Path(chosen)
    default = Path.home() / ".argotune" / "site.yaml"
    return default if default.is_file() else None


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        path = f"{prefix}{key}"
        flat |= _flatten(value, f"{path}.") if isinstance(value, dict) and path not in FIELDS else {path: value}
    return flat


def _wrong_prices(prices: Any, path: Path) -> list[Problem]:
    if prices is None:
        return []
    if not isinstance(prices, dict):
        return [
            Problem("must be a mapping", path="prices", file=str(path), fix="prices: {Standard_NC24ads_A100_v4: 3.5}")
        ]
    problems = []
    for name, usd in prices.items():
        field = f"prices.{name}"
        try:
            presets.sku(str(name))
        except presets.UnknownSku as error:
            fix = f"did you mean {error.near[0]}?" if error.near else "add it to instanceTypes"
            problems.append(Problem("unknown instance type", path=field, file=str(path), fix=fix))
        if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 < usd < float("inf"):
            problems.append(
                Problem(f"must be a price, not {usd!r}", path=field, file=str(path), fix="set USD per hour")
            )
    return problems
