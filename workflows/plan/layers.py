"""Layers of values, each from one origin, that are merged into a plan; a plan as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from workflows.errors import InvalidInput, Problem
from workflows.plan.model import Plan
from workflows.spec.findings import describe, path_of


@dataclass(frozen=True)
class Layer:
    """Values of one origin, by dotted path."""

    origin: str
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Origins that are more exact than that of the layer, for example with the line in the file."""


def merge(layers: list[Layer]) -> Plan:
    """Merge layers, the later winning, into a plan.

    Raises:
        InvalidInput: with every value of a wrong type or out of bounds, and its origin.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.values.items():
            merged[path] = value
            origins[path] = layer.origins.get(path, layer.origin)
    try:
        return Plan.model_validate({**_tree(merged.items()), "origins": origins})
    except ValidationError as error:
        raise InvalidInput([_problem(details, origins) for details in error.errors()]) from None


def _problem(details: Any, origins: Mapping[str, str]) -> Problem:
    path = path_of(details["loc"])
    origin = next((origin for known, origin in origins.items() if f"{path}.".startswith(f"{known}.")), "")
    message, fix = describe(details, Plan)
    return Problem(message, path, origin, fix=fix)


def as_dict(plan: Plan, *, without: str = "") -> dict[str, Any]:
    """Return a plan as ``{section: {field: {value, origin}}}``, for the report and ``-o json``; omit one section."""
    return _tree(
        (path, {"value": _plain(value), "origin": origin})
        for path, value, origin in plan.values()
        if path.partition(".")[0] != without
    )


def _plain(value: Any) -> Any:
    return to_jsonable_python(value, by_alias=True) if isinstance(value, list | dict | BaseModel) else value


def _tree(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return values by dotted path as nested mappings."""
    tree: dict[str, Any] = {}
    for path, value in leaves:
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
