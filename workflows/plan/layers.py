"""Layers of values, each of one place, make a plan; a plan as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from workflows.plan.model import Plan


@dataclass(frozen=True)
class Layer:
    """Values of one place, by dotted path."""

    origin: str
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """Origins more exact than that of the layer, for example with the line in the file."""


def merge(layers: list[Layer]) -> Plan:
    """Merge layers, the later winning, into a plan.

    Raises:
        pydantic.ValidationError: where a layer was not checked before.
    """
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.values.items():
            merged[path] = value
            origins[path] = layer.origins.get(path, layer.origin)
    return Plan.model_validate({**_tree(merged.items()), "origins": origins})


def as_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain data, ``{section: {field: {value, origin}}}``, for the report and ``-o json``."""
    return _tree((path, {"value": _plain(value), "origin": origin}) for path, value, origin in plan.values())


def _plain(value: Any) -> Any:
    return to_jsonable_python(value, by_alias=True) if isinstance(value, list | dict | BaseModel) else value


def _tree(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Values by dotted path as maps within maps."""
    tree: dict[str, Any] = {}
    for path, value in leaves:
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree
