"""YAML with line numbers: where each field of a document stands in its file.

Scalars are read as Kubernetes reads them (Go's YAML): ``2e-4`` is a number, ``2026-01-31`` is text, ``1:30`` is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.cyaml import CParser  # type: ignore[attr-defined]
from yaml.resolver import Resolver

from workflows.errors import Problem
from workflows.field_path import join as join

MAX_YAML_NODES = 100_000
"""Aliases can make a small file very large; a Workspace has a few dozen fields."""


@dataclass(frozen=True)
class Source:
    """Where the fields of one document stand."""

    file: str
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)

    def line(self, path: str) -> int:
        """1-based line of a field, or of the nearest field around it; 0 when nothing is known."""
        while path not in self.lines and path:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path, 0)


@dataclass(frozen=True)
class Document:
    """One YAML document: its plain value, and its lines by field path."""

    value: Any
    lines: dict[str, int]
    blocks: dict[str, int]
    """First content line of each literal block (``|``), so that YAML inside YAML keeps its lines."""


def documents(text: str, file: str, first_line: int = 1, prefix: str = "") -> tuple[list[Document], list[Problem]]:
    """Read all YAML documents of ``text``, and every problem of syntax in them.

    ``first_line`` and ``prefix`` place a text that stands inside another file.
    """
    found: list[Document] = []
    problems: list[Problem] = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            walk = _Walk(loader, file, first_line)
            walk.visit(node, prefix, ())
            problems += walk.problems
            if not walk.broken:
                found.append(Document(loader.construct_document(node), walk.lines, walk.blocks))
    except yaml.MarkedYAMLError as error:
        problem = _syntax(error, file, first_line, prefix)
        # The end of the text is told as a line after the last.
        problems.append(replace(problem, line=min(problem.line, first_line + text.count("\n"))))
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        problems.append(Problem(f"not YAML: {_one_line(error)}", path=prefix, file=file, line=first_line))
    except RecursionError:
        problems.append(Problem("nested too deeply", path=prefix, file=file, line=first_line))
    return found, problems


_INTEGER = re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_TAG = "tag:yaml.org,2002:"
_REPLACED = {f"{_TAG}{name}" for name in ("int", "float", "timestamp", "value")}
_PLAIN_TAGS = {f"{_TAG}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class _Loader(Composer, CParser, SafeConstructor, Resolver):
    """C reads the text, Python puts the nodes together: there, deep nesting would overrun the stack of C."""

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Composer.__init__(self)
        SafeConstructor.__init__(self)
        Resolver.__init__(self)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in _REPLACED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}int", _INTEGER, list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


class _Walk:
    """Collects lines, and what YAML allows but a manifest must not have."""

    def __init__(self, loader: _Loader, file: str, first_line: int) -> None:
        self.loader = loader
        self.file = file
        self.first_line = first_line
        self.lines: dict[str, int] = {}
        self.blocks: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.broken = False
        self.visited = 0
        self.seen: set[int] = set()

    def visit(self, node: yaml.Node, path: str, around: tuple[int, ...]) -> None:
        self.visited += 1
        if self.visited > MAX_YAML_NODES or id(node) in around:
            if not self.broken:
                self.wrong("aliases make this document contain itself, or very large", node, path, "write it out")
            self.broken = True
            return
        self.lines.setdefault(path, self.line(node))
        self.seen.add(id(node))
        if node.tag not in _PLAIN_TAGS:
            self.wrong(f"tag {node.tag.replace(_TAG, '!!')} is not understood", node, path, "leave the tag out")
            self.broken = True
        elif isinstance(node, yaml.MappingNode):
            self.mapping(node, path, (*around, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.visit(item, join(path, index), (*around, id(node)))
        elif isinstance(node, yaml.ScalarNode):
            self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: str, around: tuple[int, ...]) -> None:
        seen: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.wrong("a key must be text", key, path, "quote it; a template line like {{ ... }} is not YAML")
                self.broken = True
                continue
            name = join(path, str(key.value))
            if key.tag == f"{_TAG}merge":
                for merged in _merged(value):
                    self.visit(merged, path, around)
                continue
            first = seen.get((key.tag, key.value))
            if first is not None:
                self.wrong(f"{key.value!r} stands twice, first on line {first}", key, name, "keep one of them")
                continue
            seen[key.tag, key.value] = self.line(key)
            self.lines[name] = self.line(key)
            self.visit(value, name, around)

    def scalar(self, node: yaml.ScalarNode, path: str) -> None:
        if node.style == "|":
            self.blocks[path] = self.line(node) + 1
        try:
            self.loader.construct_object(node)
        except (ValueError, LookupError, AttributeError):
            self.wrong(
                f"{node.value[:40]!r} is no {node.tag.removeprefix(_TAG)}", node, path, "quote it, if it is text"
            )
            self.broken = True

    def line(self, node: yaml.Node) -> int:
        return int(node.start_mark.line) + self.first_line

    def wrong(self, what: str, node: yaml.Node, path: str, fix: str) -> None:
        # An alias has the place of what it stands for; the key before it says where it is.
        line = self.lines.get(path, 0) if id(node) in self.seen else self.line(node)
        self.problems.append(Problem(what, path=path, file=self.file, line=line or self.line(node), fix=fix))


def _merged(node: yaml.Node) -> Iterator[yaml.Node]:
    """Maps behind a merge key ``<<``."""
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    else:
        yield node


def _syntax(error: yaml.MarkedYAMLError, file: str, first_line: int, prefix: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = int(mark.line) + first_line if mark else first_line
    what = ", ".join(part for part in (error.context, error.problem) if part)
    if "nesting depth" in what:  # the limit of libyaml, from PyYAML 6.0.4 on
        return Problem("nested too deeply", path=prefix, file=file, line=line)
    fix = "check the indentation and quotes around this line; a Helm template must be rendered first"
    return Problem(f"not YAML: {what}", path=prefix, file=file, line=line, fix=fix)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
