"""Argo's JSON schema, made strict: an unknown field is an error, as in ``argo lint --strict``.

``workflow-schema.json`` is ``api/jsonschema/schema.json`` of argoproj/argo-workflows, tag v4.1.2 (Apache-2.0),
unchanged. On loading, unknown fields are forbidden, and what Argo accepts beyond the schema is allowed: numbers that
Argo converts to strings (``IntOrString``, quantities, parameters), and containers without the image that
``templateDefaults`` can set.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from workflows.argo import quantity
from workflows.lint import schema_messages as messages
from workflows.lint.rules.rule import Violation

SCHEMA = pathlib.Path(__file__).with_name("workflow-schema.json")
KINDS = ("Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow")
_ARGO = "io.argoproj.workflow.v1alpha1."
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_LOOSE = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ("string", "integer"),
    _QUANTITY: ("string", "number"),
}
_ANY_STRING = ("string", "number", "boolean")
"""Argo's ``AnyString``: a number or boolean becomes a string."""
_INTEGER_LIMITS = {"int32": 2**31, "": 2**63, "int64": 2**63}
_ANYTHING = ("withItems", "plugin")
"""Fields with any content: in them, null is a value."""
_EMPTY: dict[str, Callable[[], Any]] = {
    "object": dict, "array": list, "string": str, "integer": int, "number": int, "boolean": bool,
}  # fmt: skip
"""The empty value of each type, which Go reads for a null item of a list."""
Path = tuple[Any, ...]


@dataclasses.dataclass
class Node:
    """The schema of one value, resolved as far as documents need it."""

    definition: str = ""
    """Name of its definition in Argo's schema; empty for a value without one."""
    types: tuple[str, ...] = ()
    properties: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Schemas of the fields, as JSON until first used, then as ``Node``."""
    required: tuple[str, ...] = ()
    strict: bool = False
    """True if other fields are errors."""
    others: Any = None
    """Schema of the values of other fields."""
    items: Any = None
    constant: Any = None
    limit: int = 0
    is_quantity: bool = False

    @property
    def name(self) -> str:
        """Name in messages."""
        return self.definition.rpartition(".")[2]

    def field(self, name: str) -> Node | None:
        """Return the schema of a field; None when there is none."""
        node = self.properties.get(name)
        if node is None:
            if self.others is not None and not isinstance(self.others, Node):
                self.others = compile_node(self.others)
            return self.others
        if not isinstance(node, Node):
            node = self.properties[name] = compile_node(node)
        return node

    def item(self) -> Node | None:
        """Return the schema of the items of a list."""
        if self.items is not None and not isinstance(self.items, Node):
            self.items = compile_node(self.items)
        return self.items


@dataclasses.dataclass
class Checked:
    """A document after the check."""

    value: dict[str, Any]
    """The document without nulls and values of the wrong type."""
    violations: list[tuple[str, Violation]] = dataclasses.field(default_factory=list)
    """Violations with the ids of their rules."""
    repaired: set[str] = dataclasses.field(default_factory=set)
    """Paths of the objects that lost a field of the wrong type, so that they seem to lack it."""

    def add(self, rule: str, path: Path, message: str, fix: str = "") -> None:
        """Add a violation."""
        self.violations.append((rule, Violation(messages.path_text(path), message, fix)))


def check(value: Mapping[str, Any], kind: str) -> Checked:
    """Check a document with string keys against the schema of its kind."""
    checked = Checked({})
    cleaned = _clean(root(kind), value, (), "", checked)
    checked.value = cleaned if isinstance(cleaned, dict) else {}
    return checked


@cache
def root(kind: str) -> Node:
    """Return the schema of a kind."""
    return compile_node({"$ref": f"#/definitions/{_ARGO}{kind}"})


def compile_node(schema: Mapping[str, Any]) -> Node:
    """Return a schema as a node; its fields are compiled when a document has them."""
    if "$ref" in schema:
        return _definition(str(schema["$ref"]).removeprefix("#/definitions/"))
    types = schema.get("type", ())
    additional = schema.get("additionalProperties")
    return Node(
        types=(types,) if isinstance(types, str) else tuple(types),
        others=additional if isinstance(additional, dict) else None,
        items=schema.get("items"),
        constant=schema.get("const"),
        limit=_INTEGER_LIMITS.get(str(schema.get("format", "")), 0),
    )


@cache
def definitions() -> dict[str, Any]:
    """Return the definitions of the schema, with what Argo accepts beyond it."""
    schemas: dict[str, Any] = json.loads(SCHEMA.read_bytes())["definitions"]
    for name, types in _LOOSE.items():
        schemas[name]["type"] = types
    parameter = schemas[f"{_ARGO}Parameter"]["properties"]
    value_from = schemas[f"{_ARGO}ValueFrom"]["properties"]
    for field_schema in (parameter["value"], parameter["default"], parameter["description"], value_from["default"]):
        field_schema["type"] = _ANY_STRING
    parameter["enum"]["items"]["type"] = _ANY_STRING
    for name in ("io.k8s.api.core.v1.Container", f"{_ARGO}ScriptTemplate"):
        schemas[name].pop("required")
    return schemas


@cache
def _definition(name: str) -> Node:
    schema = definitions()[name]
    node = compile_node(schema)
    node.definition = name
    node.properties = dict(schema.get("properties", {}))
    node.required = tuple(schema.get("required", ()))
    node.strict = bool(node.properties) and node.others is None
    node.is_quantity = name == _QUANTITY
    return node


def _clean(node: Node | None, value: Any, path: Path, key: Any, checked: Checked) -> Any:
    """Return a value without nulls and wrong values, and collect its violations; None for a wrong value."""
    if node is None:
        return value
    types = node.types
    if key in _ANYTHING and not node.properties and _has_type(value, types):
        return value
    if isinstance(value, dict) and ("object" in types or not types):
        return _clean_object(node, value, path, checked)
    if isinstance(value, list) and ("array" in types or not types):
        return _clean_list(node, value, path, checked)
    if types and not _has_type(value, types):
        checked.add("wrong-type", path, *messages.wrong_type(types, value))
        if types == _ANY_STRING:
            return json.dumps(value, default=str)  # as Go reads it, so that the parameter has a value
        checked.repaired.add(messages.path_text(path[:-1]))
        return None
    if node.constant is not None and value != node.constant:
        checked.add("wrong-type", path, messages.wrong_constant(node.constant, value))
    if isinstance(value, int) and "integer" in types and not -(node.limit or 2**63) <= value < (node.limit or 2**63):
        checked.add("wrong-type", path, f"{value} is out of range")
        return None
    if node.is_quantity and isinstance(value, str) and not quantity.is_quantity(value):
        checked.add("quantity", path, f"`{value}` is not a quantity", quantity.suggest(value))
    return value


def _clean_object(node: Node, value: dict[str, Any], path: Path, checked: Checked) -> dict[str, Any]:
    cleaned = {}
    for name, item in value.items():
        if node.strict and name not in node.properties:
            rule, violation = messages.unknown_field((*path, name), node.definition, definitions())
            checked.violations.append((rule, violation))
        elif item is not None:
            result = _clean(node.field(name), item, (*path, name), name, checked)
            if result is not None:
                cleaned[name] = result
    for name in node.required:
        if value.get(name) is None:
            about = str(definitions()[node.definition]["properties"].get(name, {}).get("description", ""))
            checked.add("missing-field", path or (name,), *messages.missing_field(name, about))
    return cleaned


def _clean_list(node: Node, value: list[Any], path: Path, checked: Checked) -> list[Any]:
    inner = node.item()
    empty = _EMPTY[inner.types[0]] if inner and inner.types else None
    cleaned = []
    for index, item in enumerate(value):
        result = None if item is None else _clean(inner, item, (*path, index), "", checked)
        if item is None and empty:
            checked.add("null-item", (*path, index), "an item of a list is null", "remove it, or write ''")
        # An empty value, so that the indices do not change.
        cleaned.append(empty() if result is None and empty else result)
    return cleaned


def _has_type(value: Any, types: tuple[str, ...]) -> bool:
    if isinstance(value, bool):
        return "boolean" in types
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, int):
        return "integer" in types or "number" in types
    if isinstance(value, float):
        return "number" in types or ("integer" in types and value.is_integer())
    return (isinstance(value, dict) and "object" in types) or (isinstance(value, list) and "array" in types)
