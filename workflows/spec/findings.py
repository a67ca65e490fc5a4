"""Findings in a document: errors and warnings with their lines, and readable messages for pydantic's errors."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from steps.runtime import validation_messages
from workflows.errors import Problem
from workflows.field_path import join
from workflows.spec.source import Source

M = TypeVar("M", bound=BaseModel)
MAX_NAMES = 25
"""Maximum number of names listed in a message."""


class Findings:
    """Errors and warnings of one document, in the order found."""

    def __init__(self, source: Source, *, local: bool = False) -> None:
        self.source = source
        self.local = local
        """True if the local machine runs it, so that the memory of the instance type does not matter."""
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self.file_paths: dict[str, str] = {}
        """Path in the file for each path of the model, if they differ."""
        self._invalid_paths: set[str] = set()

    def error(self, path: str, message: str, fix: str = "") -> None:
        """Add an error, unless it follows from an earlier error at this path."""
        if not self._follows(path):
            self.errors.append(self._problem(path, message, fix))

    def reject(self, path: str, message: str, fix: str = "") -> None:
        """Add an error that makes others at this path superfluous."""
        self.error(path, message, fix)
        self._invalid_paths.add(self._path_in_file(path))

    def warn(self, path: str, message: str, fix: str = "") -> None:
        """Add a warning."""
        if not self._follows(path):
            self.warnings.append(self._problem(path, message, fix))

    def read(self, kind: type[M], value: Any) -> M | None:
        """Validate ``value``. Invalid parts are reported and then repaired, so that rules can check the rest.

        Returns:
            The model, or None if it cannot be repaired.
        """
        value = copy.deepcopy(value)
        for _ in range(20):
            try:
                return kind.model_validate(value)
            except ValidationError as error:
                meant = set(_meant(error, kind))
                for details in error.errors():
                    path = path_of(details["loc"])
                    if details["type"] != "missing" or path not in meant:
                        self.error(path, *describe(details, kind))
                    self._invalid_paths.add(path)
                    _repair(value, details, kind)
        return None

    def _problem(self, path: str, message: str, fix: str) -> Problem:
        path = self._path_in_file(path)
        return Problem(message, path=path, file=self.source.file_of(path), line=self.source.line(path), fix=fix)

    def _path_in_file(self, path: str) -> str:
        """Return the path as written in the file."""
        known = [
            prefix for prefix in self.file_paths if path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))
        ]
        prefix = max(known, key=len, default="")
        return self.file_paths[prefix] + path.removeprefix(prefix) if prefix else path

    def _follows(self, path: str) -> bool:
        """Return True if the path, one of its parents, or one of its direct fields is invalid."""
        path = self._path_in_file(path)
        parents = {path[:end] for end in range(len(path)) if path[end] in ".["} | {path}
        inside = {invalid[: max(invalid.rfind("."), invalid.rfind("["), 0)] for invalid in self._invalid_paths}
        return bool(self._invalid_paths & parents) or (path in inside)


def path_of(loc: Iterable[str | int]) -> str:
    """Return the field path of a pydantic location."""
    path = ""
    for part in loc:
        path = path if part == "[key]" else join(path, part)
    return path


def unknown(name: str, known: Collection[str]) -> str:
    """Return the fix for an unknown name."""
    if near := _nearest(name, known):
        return f"did you mean {near}?"
    return f"known: {', '.join(known)}" if len(known) <= MAX_NAMES else "docs/FIELDS.md lists the fields"


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most similar; empty if none is."""
    by_lower = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[near[0]] if near else ""


def _meant(error: ValidationError, kind: type[BaseModel]) -> Iterator[str]:
    """Yield the paths that unknown fields were meant for: they are not reported as missing too."""
    for details in error.errors():
        *outer, name = details["loc"] or ("",)
        if details["type"] == "extra_forbidden" and (parent := _model_at(kind, tuple(outer))):
            yield path_of((*outer, _nearest(str(name), _names(parent))))


def describe(error: ErrorDetails, kind: type[BaseModel] | None = None) -> tuple[str, str]:
    """Return the message and the fix for an error of pydantic, the same for each source of a value."""
    parent = _model_at(kind, error["loc"][:-1])
    match error["type"]:
        case "extra_forbidden":
            return "unknown field", unknown(str(error["loc"][-1]), _names(parent)) if parent else ""
        case "missing":
            return "missing field", _help(parent, error["loc"])
        case "string_type" if isinstance(error["input"], int | float):
            return validation_messages.describe(error), "quote it"
        case "list_type" | "tuple_type":
            return validation_messages.describe(error), "write each entry on a line that begins with a dash"
        case "dict_type" | "model_type":
            return validation_messages.describe(error), _help(parent, error["loc"], "write its fields below")
    return validation_messages.describe(error), validation_messages.fix(error)


def _help(parent: type[BaseModel] | None, loc: tuple[str | int, ...], verb: str = "add") -> str:
    if not parent:
        return ""
    field = next((f for f in parent.model_fields.values() if f.alias == loc[-1]), None)
    text = (field.description if field else "") or ""
    inner = _inner(field.annotation) if field else None
    text = text or (inner.__doc__ or "" if inner else "")
    text = " ".join(text.replace("``", "").split())
    return f"{verb} {loc[-1]}: {text}" if text else f"{verb} {loc[-1]}"


def _names(kind: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]


def _model_at(kind: type[BaseModel] | None, loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    for part in loc:
        if kind and isinstance(part, str):
            kind = next((_inner(f.annotation) for f in kind.model_fields.values() if f.alias == part), None)
    return kind


def _inner(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside ``Model``, ``Model | None`` or ``list[Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)


def _repair(value: Any, error: ErrorDetails, kind: type[BaseModel]) -> None:
    """Remove the invalid value at the location of an error, or replace it if the field is required."""
    loc = [part for part in error["loc"] if part != "[key]"]
    if not loc:
        return
    *parents, last = loc
    for part in parents:
        value = value[part]
    parent = _model_at(kind, error["loc"][:-1])
    field = next((f for f in parent.model_fields.values() if f.alias == last), None) if parent else None
    if isinstance(value, list) and isinstance(last, int):
        inner = _model_at(kind, error["loc"])
        value[last] = {} if inner and error["type"] == "model_type" else ""
    elif isinstance(value, dict) and field and field.is_required():
        allowed = get_args(field.annotation)
        value[last] = {} if _inner(field.annotation) else allowed[0] if allowed else ""
    elif isinstance(value, dict):
        value.pop(last, None)
        if error["type"] == "invalid_key":
            for key in [key for key in value if str(key) == str(last)]:
                del value[key]
