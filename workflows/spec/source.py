"""YAML with the line number of each field.

Scalars are read as Kubernetes reads them (Go's YAML): ``2e-4`` is a number, ``y`` is true, ``2026-01-31``, ``1:30``
and ``!tag 1`` are text.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser  # type: ignore[attr-defined]
from yaml.resolver import Resolver

from workflows.errors import Problem

MAX_C_NESTING = 1000
"""Composing in C is faster, and overflows the stack at some ten thousand levels."""
MAX_YAML_NODES = 100_000
"""Aliases can make a small file very large; a Workspace has a few dozen fields."""


@dataclass(frozen=True)
class Source:
    """Line numbers of the fields of one document."""

    file: str
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    """Other files, by the first part of the paths that they contain: those of ConfigMaps."""

    def file_of(self, path: str) -> str:
        """Return the file with a field."""
        return self.files.get(path.partition(".")[0], self.file)

    def line(self, path: str) -> int:
        """Return the 1-based line of a field or its nearest parent; 0 if unknown."""
        while path not in self.lines and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


@dataclass(frozen=True)
class Document:
    """One YAML document: its value, and its lines by field path."""

    value: Any
    lines: dict[str, int]
    blocks: dict[str, int]
    """First content line of each literal block (``|``), so that YAML inside YAML keeps its lines."""


def documents(text: str, file: str, first_line: int = 1, prefix: str = "") -> tuple[list[Document], list[Problem]]:
    """Read all YAML documents of ``text``, and collect all syntax errors.

    ``first_line`` and ``prefix`` are line and path of ``text`` in its file, for YAML inside YAML.
    """
    found: list[Document] = []
    problems: list[Problem] = []
    try:
        loader = _ShallowLoader(text) if _is_shallow(text) else _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            walk = _Walk(loader, file, first_line)
            walk.visit(node, prefix, ())
            problems += walk.problems
            if not walk.broken:
                found.append(Document(_construct(loader, node), walk.lines, walk.blocks))
            loader.constructed_objects = {}
    except yaml.MarkedYAMLError as error:
        problem = _with_cause(_syntax(error, file, first_line, prefix), text, first_line)
        # PyYAML reports the end of the text as the line after the last.
        problems.append(replace(problem, line=min(problem.line, first_line + text.count("\n"))))
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        problems.append(Problem(f"not YAML: {_one_line(error)}", prefix, file, first_line, _ENCODING_FIX))
    except RecursionError:
        problems.append(Problem("nested too deeply", prefix, file, first_line, "use fewer levels"))
    return found, problems


_ENCODING_FIX = "write UTF-8 text without control characters"
# As Go's strconv.ParseInt reads them, without underscores.
_INTEGER = re.compile(r"^[-+]?(0[bB][01_]+|0[oO][0-7_]+|0[xX][0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_INVISIBLE = re.compile(r" *([\t\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000\ufeff])")
_FLOAT = re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_TAG = "tag:yaml.org,2002:"
_REPLACED = {f"{_TAG}{name}" for name in ("int", "float", "timestamp", "value", "bool")}
_BOOLEAN = re.compile(r"^(y|Y|yes|Yes|YES|on|On|ON|true|True|TRUE|n|N|no|No|NO|off|Off|OFF|false|False|FALSE)$")
_TRUE = {"y", "yes", "on", "true"}
_PLAIN_TAGS = {f"{_TAG}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "binary")}
_STRING, _MAPPING, _SEQUENCE = f"{_TAG}str", f"{_TAG}map", f"{_TAG}seq"
_NOT_PLAIN_KEYS = {f"{_TAG}merge", f"{_TAG}value"}
_KIND_TAGS = ((yaml.ScalarNode, f"{_TAG}str"), (yaml.SequenceNode, f"{_TAG}seq"), (yaml.MappingNode, f"{_TAG}map"))


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """Loader that parses in C and composes in Python: composing deep nesting in C overflows the stack."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in _REPLACED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return loader.construct_yaml_int(yaml.ScalarNode(node.tag, node.value.lower()))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    number = float(loader.construct_yaml_float(node))
    if math.isfinite(number):
        return number
    if any(sign in node.value.lower() for sign in ("inf", "nan")):
        raise ValueError("JSON has no such number")
    return str(node.value)  # Go reads a number out of range as text.


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if not _BOOLEAN.match(text):
        raise ValueError("not a boolean")
    return text.lower() in _TRUE


def _construct_binary(loader: _Loader, node: yaml.ScalarNode) -> str:
    return base64.b64decode("".join(str(loader.construct_scalar(node)).split()), validate=True).decode(
        errors="replace"
    )


_Loader.add_constructor(f"{_TAG}int", _construct_int)  # type: ignore[type-var]
_Loader.add_constructor(f"{_TAG}float", _construct_float)  # type: ignore[type-var]
_Loader.add_constructor(f"{_TAG}bool", _construct_bool)  # type: ignore[type-var]
_Loader.add_constructor(f"{_TAG}binary", _construct_binary)  # type: ignore[type-var]
_Loader.add_implicit_resolver(f"{_TAG}bool", _BOOLEAN, list("yYnNtTfFoO"))
_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


class _ShallowLoader(CParser, SafeConstructor, Resolver):
    """The same loader, composing in C."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers
    yaml_constructors = _Loader.yaml_constructors

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        """Return the tag of a node without tag, as the base class does, but without resolvers of paths."""
        if kind is yaml.ScalarNode:
            return _plain_tag(value) if implicit[0] else _STRING
        return _MAPPING if kind is yaml.MappingNode else _SEQUENCE


@lru_cache(maxsize=10_000)
def _plain_tag(value: str) -> str:
    """Return the tag of a scalar without quotes; few words make up most of a manifest."""
    rules = _Loader.yaml_implicit_resolvers.get(value[:1], ())
    return next((str(tag) for tag, rule in rules if rule.match(value)), _STRING)


def _construct(loader: _Loader | _ShallowLoader, node: yaml.Node) -> Any:
    """Return the value of a visited node: plain nodes here, which is faster, and others by the loader."""
    kind, tag = type(node), node.tag
    if kind is yaml.ScalarNode and tag == _STRING:
        return node.value
    if kind is yaml.SequenceNode and tag == _SEQUENCE:
        return [_construct(loader, item) for item in node.value]
    if kind is yaml.MappingNode and tag == _MAPPING and not any(key.tag in _NOT_PLAIN_KEYS for key, _ in node.value):
        return {_construct(loader, key): _construct(loader, item) for key, item in node.value}
    return loader.construct_object(node, deep=True)


def _is_shallow(text: str) -> bool:
    """Return True if the nesting is certainly below the limit: each level needs a bracket, column or indicator."""
    brackets = text.count("[") + text.count("{")
    if brackets > MAX_C_NESTING:
        return False
    lines = text.split("\n")
    if brackets + max(map(len, lines)) <= MAX_C_NESTING:
        return True
    deepest = 0
    for line in lines:
        content = line.lstrip(" ")
        deepest = max(deepest, len(line) - len(content) + content.count("-") + content.count("?") + content.count(":"))
    return brackets + deepest <= MAX_C_NESTING


class _Walk:
    """Visitor that collects lines, and YAML features that are not allowed in a manifest."""

    def __init__(self, loader: _Loader | _ShallowLoader, file: str, first_line: int) -> None:
        self.loader = loader
        self.file = file
        self.first_line = first_line
        self.lines: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.broken = False
        self.visited = 0
        self.seen: set[int] = set()

    def visit(self, node: yaml.Node, path: str, parents: tuple[int, ...]) -> None:
        if node.tag == _STRING and type(node) is yaml.ScalarNode and self.visited < MAX_YAML_NODES:
            self.text(node, path)
            return
        self.visited += 1
        if self.visited > MAX_YAML_NODES or id(node) in parents:
            if not self.broken:
                self.add_problem(
                    "aliases make this document recursive or very large",
                    node,
                    path,
                    "replace the aliases by their content",
                )
            self.broken = True
            return
        self.lines.setdefault(path, self.line(node))
        self.seen.add(id(node))
        if node.tag.startswith("!") or (node.tag == f"{_TAG}merge" and isinstance(node, yaml.ScalarNode)):
            # Go ignores the tags of programs, and a merge key that is a value is text.
            node.tag = next(tag for kind, tag in _KIND_TAGS if isinstance(node, kind))
        if node.tag not in _PLAIN_TAGS:
            self.add_problem(f"tag {node.tag.replace(_TAG, '!!')} is not supported", node, path, "remove the tag")
            self.broken = True
        elif isinstance(node, yaml.MappingNode):
            self.mapping(node, path, (*parents, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, f"{path}[{index}]", (*parents, id(node)))
        elif isinstance(node, yaml.ScalarNode):
            self.scalar(node, path)

    def text(self, node: yaml.ScalarNode, path: str) -> None:
        """Visit a string: most nodes are strings."""
        self.visited += 1
        if path not in self.lines:
            self.lines[path] = self.line(node)
        self.seen.add(id(node))
        if node.style == "|":
            self.blocks[path] = self.line(node) + 1

    def mapping(self, node: yaml.MappingNode, path: str, parents: tuple[int, ...]) -> None:
        seen: dict[tuple[str, str], int] = {}
        prefix = f"{path}." if path else ""
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.add_problem(
                    "a key must be a string", key, path, "quote it; a template line such as {{ ... }} is not YAML"
                )
                self.broken = True
                continue
            name = f"{prefix}{key.value}"
            if key.tag == f"{_TAG}merge":
                for merged in _merged(value):
                    self.visit(merged, path, parents)
                continue
            first = seen.get((key.tag, key.value))
            if first is not None:
                self.add_problem(
                    f"{key.value!r} is a duplicate, first on line {first}", key, name, "remove one of them"
                )
                self.visit(value, name, parents)
                continue
            seen[key.tag, key.value] = self.lines[name] = self.line(key)
            self.visit(value, name, parents)

    def scalar(self, node: yaml.ScalarNode, path: str) -> None:
        if node.style == "|":
            self.blocks[path] = self.line(node) + 1
        try:
            self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            self.add_problem(
                f"{node.value[:40]!r} is not a valid {node.tag.removeprefix(_TAG)}",
                node,
                path,
                "quote it if it is a string",
            )
            self.broken = True

    def line(self, node: yaml.Node) -> int:
        return int(node.start_mark.line) + self.first_line

    def add_problem(self, message: str, node: yaml.Node, path: str, fix: str) -> None:
        # An alias has the position of its anchor; the key before it has the position of the alias.
        line = self.lines.get(path, 0) if id(node) in self.seen else self.line(node)
        self.problems.append(Problem(message, path=path, file=self.file, line=line or self.line(node), fix=fix))


def _merged(node: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the mappings of a merge key ``<<``."""
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    else:
        yield node


def _syntax(error: yaml.MarkedYAMLError, file: str, first_line: int, prefix: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = int(mark.line) + first_line if mark else first_line
    message = ", ".join(part for part in (error.context, error.problem) if part)
    if "nesting depth" in message:  # the limit of libyaml, from PyYAML 6.0.4 on
        return Problem("nested too deeply", path=prefix, file=file, line=line, fix="use fewer levels")
    fix = "check the indentation and quotes around this line; a Helm template must be rendered first"
    return Problem(f"not YAML: {message}", path=prefix, file=file, line=line, fix=fix)


def _with_cause(problem: Problem, text: str, first_line: int) -> Problem:
    """Name a character that people do not see, if one up to the line of a syntax error explains it."""
    for line, content in reversed(list(enumerate(text.split("\n"), first_line))):
        if problem.line - 3 <= line <= problem.line and (found := _INVISIBLE.match(content)):
            name = "tab" if found[1] == "\t" else f"space character U+{ord(found[1]):04X}"
            return replace(
                problem,
                message=f"not YAML: the indentation has a {name}",
                line=line,
                fix="indent with spaces only",
            )
    return problem


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
