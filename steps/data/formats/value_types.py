"""Types of parsed JSON values, and their common type over all rows of a file.

A type is a nested tuple: ``NULL``, ``BOOL``, ``INT``, ``FLOAT``, ``TEXT``, ``JSON``, ``(LIST, element)`` or
``(OBJECT, {key: type})``. ``JSON`` is the value as JSON text: where objects have arbitrary keys (arguments of tools),
as columns would add each other's keys to them, and where values of fields that are not trained on differ in type.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Type = tuple[Any, ...]
NULL, BOOL, INT, FLOAT, TEXT, JSON = (("null",), ("bool",), ("int",), ("float",), ("text",), ("json",))
LIST, OBJECT = "list", "object"
OPEN_KEYS = frozenset(
    {"arguments", "parameters", "tools", "functions", "properties", "input_schema", "json_schema", "response_format"}
    | {"chat_template_kwargs"}
)
"""Keys whose objects have arbitrary keys."""
CONTENT_KEYS = frozenset({"content", "value"})
"""Keys of a message's text, which can also be a list of parts."""
STRICT_KEYS = frozenset({"role", "from", *CONTENT_KEYS})
"""Keys whose values must have one type in all rows."""
PART: Type = (OBJECT, {"type": TEXT, "text": TEXT})
MAX_DEPTH = 16
MAX_KEYS = 200
INT64 = 2**63
_NAMES = {
    "int": "number",
    "float": "number",
    "bool": "true or false",
    LIST: "list",
    OBJECT: "object",
    "json": "object",
}


class TypeConflict(Exception):
    """Values that have no common type. Its text describes both."""


def type_of(value: Any, key: str = "", depth: int = 0) -> Type:
    """Return the type of a value that is found under ``key``.

    Raises:
        TypeConflict: list elements differ in type, or a value is too large or nested too deeply.
    """
    kind = type(value)
    if kind is str:
        return TEXT
    if value is None:
        return NULL
    if kind is bool:
        return BOOL
    if kind is int:
        if -INT64 <= value < INT64:
            return INT
        raise TypeConflict(f"`{key}` is a number beyond 64 bits")
    if kind is float:
        return FLOAT
    if key in OPEN_KEYS:
        return JSON
    if depth >= MAX_DEPTH:
        raise TypeConflict(f"`{key}` is nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        element = NULL
        for item in value:
            element = merge(element, type_of(item, key, depth + 1), key)
        return (LIST, element)
    if len(value) > MAX_KEYS:
        if key in STRICT_KEYS:
            raise TypeConflict(f"`{key}` is an object with more than {MAX_KEYS} keys")
        return JSON
    return (OBJECT, {name: type_of(item, name, depth + 1) for name, item in value.items()})


def merge(first: Type, second: Type, key: str, strict: bool = False) -> Type:
    """Return the common type of two types under ``key``.

    Raises:
        TypeConflict: there is none, and the key is one that is trained on.
    """
    if first == second or second == NULL:
        return first
    if first == NULL:
        return second
    kinds = {first[0], second[0]}
    if kinds == {"int", "float"}:
        return FLOAT
    if kinds == {LIST}:
        return (LIST, merge(first[1], second[1], key, strict))
    if kinds == {OBJECT}:
        fields = {
            name: merge(first[1].get(name, NULL), second[1].get(name, NULL), name)
            for name in dict.fromkeys([*first[1], *second[1]])
        }
        if len(fields) <= MAX_KEYS:
            return (OBJECT, fields)
    elif key in CONTENT_KEYS and kinds == {"text", LIST}:
        return (LIST, merge(PART, next(part for part in (first, second) if part[0] == LIST)[1], key))
    if strict or key in STRICT_KEYS:
        raise TypeConflict(f"`{key}` is {describe(second)}, but {describe(first)} in other rows")
    return JSON


def describe(kind: Type) -> str:
    """Return a type's name for messages."""
    name = _NAMES.get(kind[0], kind[0])
    return name if name in ("text", "true or false") else f"an {name}" if name == "object" else f"a {name}"


def matcher(kind: Type, key: str = "") -> Callable[[Any], bool]:
    """Return the function that checks quickly if values under ``key`` have the type ``kind`` already.

    It can return False for a value whose type is merged without a change.
    """
    if kind[0] == LIST:
        return _list_matcher(matcher(kind[1], key), key in CONTENT_KEYS)
    if kind[0] == OBJECT:
        return _object_matcher({name: matcher(part, name) for name, part in kind[1].items()})
    if kind == JSON:
        return lambda value: True
    types = {NULL: (), BOOL: (bool,), TEXT: (str,), FLOAT: (float,), INT: (int,)}[kind]
    if kind == INT:
        return lambda value: value is None or (type(value) is int and -INT64 <= value < INT64)
    return lambda value: value is None or type(value) in types


def _list_matcher(matches: Callable[[Any], bool], is_content: bool) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) is list:
            return all(map(matches, value))
        return value is None or (is_content and type(value) is str)

    return check


def _object_matcher(fields: Mapping[str, Callable[[Any], bool]]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if type(value) is not dict:
            return value is None
        for name, item in value.items():
            matches = fields.get(name)
            if matches is None or not matches(item):
                return False
        return True

    return check


def fitter(kind: Type, key: str = "") -> Callable[[Any], Any] | None:
    """Return the function that converts values under ``key`` to the type ``kind``; None if they need no conversion."""
    if kind == JSON:
        return _to_json
    if kind[0] == LIST:
        convert, is_content = fitter(kind[1], key), key in CONTENT_KEYS
        if not convert and not is_content:
            return None
        return lambda value: _fit_list(value, convert)
    if kind[0] == OBJECT and not kind[1]:
        return lambda value: None  # Its Arrow type is null.
    if kind[0] == OBJECT:
        converters = {name: convert for name, part in kind[1].items() if (convert := fitter(part, name))}
        return (lambda value: _fit_object(value, converters)) if converters else None
    return None


def _to_json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fit_list(value: Any, convert: Callable[[Any], Any] | None) -> Any:
    if isinstance(value, str):  # The content of a message, where others have parts.
        value = [{"type": "text", "text": value}]
    return [convert(item) for item in value] if convert and value is not None else value


def _fit_object(value: Any, converters: Mapping[str, Callable[[Any], Any]]) -> Any:
    if value is None:
        return None
    return value | {name: convert(value[name]) for name, convert in converters.items() if name in value}


def to_arrow(kind: Type) -> pa.DataType:
    """Return the Arrow type of a type; an object without keys is null, as parquet has no such type."""
    import pyarrow as pa

    name = kind[0]
    if name == LIST:
        return pa.list_(to_arrow(kind[1]))
    if name == OBJECT:
        fields = [(key, to_arrow(part)) for key, part in kind[1].items()]
        return pa.struct(fields) if fields else pa.null()
    scalars: Mapping[str, pa.DataType] = {
        "null": pa.null(),
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
    }
    return scalars.get(name, pa.string())
