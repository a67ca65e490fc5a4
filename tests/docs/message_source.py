"""Error messages in the source, by syntax tree: the text, its fix and the class of each error that is raised.

Values that are known only at runtime become placeholders in capitals. A variable is replaced by what the function
assigns to it, a parameter by what callers in the same file pass.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("steps", "workflows", "presets")
ROOT_ERRORS = {"StepError", "ArgotuneError"}
MAX_DEPTH, MAX_VARIANTS = 5, 12
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, order=True)
class Message:
    """An error or a warning as the source writes it."""

    text: str
    fix: str
    file: str
    line: int
    kind: str
    """Name of the error's class; ``Problem`` for a finding in the user's input, ``warning`` for a warning."""


@dataclass(frozen=True)
class _Signature:
    """Positions of message and fix in the arguments of a call that creates an error."""

    message: int
    fix: int
    kind: str


def messages() -> list[Message]:
    """Return every message of the package, without duplicates, in the order of files and lines."""
    found = [message for file in _files() for message in _Module(file).messages()]
    unique = {(message.text, message.fix, message.kind): message for message in reversed(found)}
    return sorted(unique.values(), key=lambda message: (message.file, message.line, message.text))


def _files() -> list[Path]:
    return sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


@cache
def error_classes() -> dict[str, str]:
    """Return the names of all error classes that a user sees, each with its base class."""
    classes = [node for file in _files() for node in ast.walk(_tree(file)) if isinstance(node, ast.ClassDef)]
    bases = {node.name: _name(base) for node in classes for base in node.bases}
    found = {name: "" for name in ROOT_ERRORS}
    while more := {name: base for name, base in bases.items() if base in found and name not in found}:
        found |= more
    return found


@cache
def _constants(file: Path) -> dict[str, ast.expr]:
    """Return the values that a module assigns to names."""
    assignments = [node for node in _tree(file).body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value]
    targets = [(node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value) for node in assignments]
    return {target.id: value for target, value in targets if isinstance(target, ast.Name) and value is not None}


@cache
def _module(name: str) -> _Module | None:
    file = ROOT / f"{name.replace('.', '/')}.py"
    return _Module(file) if file.is_file() else None


def _has_words(text: str) -> bool:
    return any(len(word) > 1 and word.islower() for word in text.replace("`", "").split())


class _Module:
    def __init__(self, file: Path) -> None:
        self.file = str(file.relative_to(ROOT))
        self.tree = _tree(file)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.functions = {node.name: node for node in ast.walk(self.tree) if isinstance(node, FUNCTIONS)}
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        self.imports = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def messages(self) -> Iterator[Message]:
        for call in self.calls:
            if signature := self._signature(call):
                yield from self._messages_of(call, signature)

    def _signature(self, call: ast.Call) -> _Signature | None:
        name = _name(call.func)
        keywords = {keyword.arg for keyword in call.keywords}
        if name == "Problem" or (name == "replace" and "message" in keywords):
            return _Signature(0, 4, "Problem")
        if name in error_classes() and name not in ("InvalidInput", "ApiError", "ApiFailure"):
            return _Signature(0, 1, name)
        if name in ("ApiFailure", "ApiError"):
            return _Signature(2, 3, name)
        if isinstance(call.func, ast.Attribute) and name in ("error", "warn", "problem") and len(call.args) >= 2:
            return _Signature(1, 2, "warning" if name == "warn" else "Problem")
        if self.file.startswith("workflows/doctor/") and name in ("fail", "not_checked"):
            return _Signature(1, 2, "check")
        return None

    def _messages_of(self, call: ast.Call, signature: _Signature) -> Iterator[Message]:
        message = _argument(call, signature.message, "message")
        if message is None or not self._is_text(message):
            return
        fix = _argument(call, signature.fix, "fix")
        for text, remedy in self._pairs(message, fix, call):
            # Text without any word of its own passes on the message of another error.
            if _has_words(text):
                yield Message(" ".join(text.split()), " ".join(remedy.split()), self.file, call.lineno, signature.kind)

    def _pairs(self, message: ast.expr, fix: ast.expr | None, call: ast.Call) -> Iterator[tuple[str, str]]:
        """Yield message and fix; both from one caller if both are parameters."""
        function = self._function(call)
        parameters = {
            isinstance(part, ast.Name) and _is_parameter(part.id, function) for part in (message, fix) if part
        }
        if function and parameters == {True}:
            for caller in self.calls:
                if _name(caller.func) == function.name and caller is not call:
                    parts = [self._passed(part, caller, function) for part in (message, fix) if part]
                    if parts[0] is not None:
                        yield from self._product(parts[0], parts[1] if len(parts) > 1 else None, caller)
            return
        yield from self._product(message, fix, call)

    def _product(self, message: ast.expr, fix: ast.expr | None, where: ast.AST) -> Iterator[tuple[str, str]]:
        texts = self.variants(message, where)
        fixes = self.variants(fix, where) if fix is not None else [""]
        if len(texts) == len(fixes):  # assigned together
            yield from zip(texts, fixes, strict=True)
        else:
            yield from itertools.product(texts, [" or ".join(dict.fromkeys(filter(None, fixes)))])

    def variants(self, node: ast.expr, where: ast.AST, depth: int = 0) -> list[str]:
        """Return the texts that an expression can have."""
        found = list(dict.fromkeys(self._variants(node, where, depth)))
        return found[:MAX_VARIANTS] or [""]

    def _variants(self, node: ast.expr, where: ast.AST, depth: int) -> list[str]:
        if isinstance(node, ast.Constant):
            return [str(node.value) if node.value is not None else ""]
        if depth > MAX_DEPTH:
            return [placeholder(node)]
        if isinstance(node, ast.JoinedStr):
            parts = [self._part(part, where, depth) for part in node.values]
            return [_join(choice) for choice in itertools.islice(itertools.product(*parts), MAX_VARIANTS)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [self.variants(side, where, depth + 1) for side in (node.left, node.right)]
            return ["".join(choice) for choice in itertools.product(*sides)]
        if isinstance(node, ast.IfExp):
            return [*self.variants(node.body, where, depth + 1), *self.variants(node.orelse, where, depth + 1)]
        if isinstance(node, ast.Subscript) and isinstance(table := self._constant(node.value), ast.Dict):
            return [text for value in table.values for text in self.variants(value, where, depth + 1)]
        if isinstance(node, ast.Name | ast.Attribute) and (values := self._values(node, where)):
            return [text for value, place in values for text in self.variants(value, place, depth + 1)]
        if isinstance(node, ast.Call) and (returned := self._returned(node, depth)):
            return returned
        return [placeholder(node)]

    def _part(self, part: ast.expr, where: ast.AST, depth: int) -> list[str]:
        """Return the texts of a part of an f-string: an optional one as if it was present."""
        if isinstance(part, ast.FormattedValue):
            inner = part.value
            if isinstance(inner, ast.IfExp):
                return [text for text in self.variants(inner, where, depth + 1) if text] or [""]
            if isinstance(self._constant(inner), ast.Constant) or isinstance(inner, ast.JoinedStr):
                return self.variants(inner, where, depth + 1)
            if isinstance(inner, ast.Call) and _name(inner.func) == "namespace_flag":
                return [" --namespace NAMESPACE"]
            return [placeholder(inner)]
        return self.variants(part, where, depth + 1)

    def _values(self, node: ast.Name | ast.Attribute, where: ast.AST) -> list[tuple[ast.expr, ast.AST]]:
        """Return what a name stands for: assigned values, values that callers pass, or a constant."""
        name = _name(node)
        function = self._function(where)
        if function and isinstance(node, ast.Name):
            if assigned := self._assigned(name, where, function):
                return [(value, where) for value in assigned]
            if _is_parameter(name, function):
                callers = [call for call in self.calls if _name(call.func) == function.name]
                passed = [(self._passed(node, call, function), call) for call in callers]
                return [(value, call) for value, call in passed if value is not None and value is not node]
        constant = self._constant(node)
        return [(constant, where)] if isinstance(constant, ast.Constant | ast.JoinedStr | ast.BinOp) else []

    def _assigned(self, name: str, where: ast.AST, function: ast.FunctionDef) -> list[ast.expr]:
        """Return the values that a name can have at a place: those of the nearest assignments before it."""
        found: list[ast.expr] = []
        while where is not function and where in self.parents:
            where, inner = self.parents[where], where
            for block in (getattr(where, field, None) for field in ("body", "orelse", "finalbody")):
                if not isinstance(block, list) or inner not in block:
                    continue
                for statement in reversed(block[: block.index(inner)]):
                    values = list(_assigned(name, statement))
                    found += values
                    if values and (
                        not isinstance(statement, ast.If | ast.For | ast.While) or _covers(statement, name)
                    ):
                        return found
            found += [value for value in _assigned(name, getattr(where, "test", ast.Pass()))]
        return found

    def _constant(self, node: ast.expr) -> ast.expr | None:
        """Return the value of a constant of this module, or of one that it imports."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            package, module = self.imports.get(node.value.id, ("", node.value.id))
            return self._imported(f"{package}.{module}", node.attr)
        if not isinstance(node, ast.Name):
            return None
        if (value := _constants(ROOT / self.file).get(node.id)) is not None:
            return value
        module, name = self.imports.get(node.id, ("", ""))
        return self._imported(module, name) if module else None

    @staticmethod
    def _imported(module: str, name: str) -> ast.expr | None:
        found = _module(module)
        return _constants(ROOT / found.file).get(name) if found else None

    def _passed(self, part: ast.expr, call: ast.Call, function: ast.FunctionDef) -> ast.expr | None:
        """Return the argument that a call passes for a parameter, or its default."""
        name = _name(part)
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        if names and names[0] in ("self", "cls"):
            names = names[1:]
        position = names.index(name) if name in names else -1
        if (value := _argument(call, position, name)) is not None:
            return value
        defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
        return defaults.get(name)

    def _returned(self, call: ast.Call, depth: int) -> list[str]:
        """Return the texts of a function of this file, or of a module that it imports."""
        name, module = _name(call.func), self
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            package, imported = self.imports.get(call.func.value.id, ("", ""))
            module = _module(f"{package}.{imported}") if package else self
        elif name in self.imports:
            source, name = self.imports[name]
            module = _module(source)
        function = module.functions.get(name) if module else None
        if module is None or function is None or ast.unparse(function.returns or ast.Constant("")) != "str":
            return []
        returns = [node for node in ast.walk(function) if isinstance(node, ast.Return) and self._is_text(node.value)]
        texts = [text for node in returns if node.value for text in module.variants(node.value, node, depth + 1)]
        return [text for text in texts if _has_words(text)] if any(_has_words(text) for text in texts) else []

    def _function(self, node: ast.AST) -> ast.FunctionDef | None:
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, FUNCTIONS):
                return node  # type: ignore[return-value]
        return None

    @staticmethod
    def _is_text(node: ast.expr | None) -> bool:
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str)
        return isinstance(node, ast.JoinedStr | ast.BinOp | ast.IfExp | ast.Name | ast.Attribute | ast.Call)


NAMES = {"SHOWN": "LOCATION", "STRERROR": "REASON", "QUALIFIED": "KIND", "DECODED": "PATH", "STATUS_CODE": "STATUS"}


def placeholder(node: ast.expr) -> str:
    """Return a name in capitals for a value that is known at runtime."""
    name = _placeholder(node)
    return NAMES.get(name, name)


def _placeholder(node: ast.expr) -> str:
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.Name():
            return node.id.strip("_").upper()
        case ast.Attribute():
            return node.attr.strip("_").upper()
        case ast.Call(func=ast.Name(id="len" | "sum" | "round" | "max" | "min" | "int")):
            return "N"
        case ast.Call(func=ast.Attribute(attr="join"), args=[argument]):
            return placeholder(argument)
        case ast.Call(args=[argument, *_]) if not isinstance(argument, ast.Constant):
            return placeholder(argument)
        case ast.Call(func=ast.Attribute(value=value)):
            return placeholder(value)
        case ast.Call(func=ast.Name(id=name)):
            return name.strip("_").upper()
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key.upper()
        case ast.Subscript(value=value) | ast.Starred(value=value):
            return placeholder(value)
        case ast.BinOp(op=ast.Div() | ast.Mult() | ast.Sub()):
            return "N"
        case ast.BinOp(left=value) | ast.IfExp(body=value) | ast.BoolOp(values=[value, *_]):
            return placeholder(value)
        case ast.GeneratorExp(elt=value) | ast.ListComp(elt=value) | ast.FormattedValue(value=value):
            return placeholder(value)
        case ast.JoinedStr(values=parts):
            return "".join(placeholder(part) for part in parts)
        case ast.List(elts=[value, *_]) | ast.Tuple(elts=[value, *_]):
            return placeholder(value)
    return "VALUE"


def _join(parts: tuple[str, ...]) -> str:
    """Return parts of an f-string as one text, with a space between two placeholders."""
    text = ""
    for part in parts:
        text += f" {part}" if text[-1:].isupper() and part[:1].isupper() else part
    return text


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    in_range = 0 <= position < len(call.args) and not any(isinstance(arg, ast.Starred) for arg in call.args)
    return call.args[position] if in_range else None


def _is_parameter(name: str, function: ast.FunctionDef | None) -> bool:
    arguments = function.args if function else None
    return bool(arguments) and any(
        argument.arg == name for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
    )


def _covers(statement: ast.stmt, name: str) -> bool:
    """Return True if every branch of an ``if`` assigns the name."""
    if not isinstance(statement, ast.If) or not statement.orelse:
        return False
    return all(
        any(True for part in block for _ in _assigned(name, part)) for block in (statement.body, statement.orelse)
    )


def _assigned(name: str, root: ast.AST) -> Iterator[ast.expr]:
    """Yield the values that a part of a function assigns to a name, also as part of a tuple."""
    for node in ast.walk(root):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    for part, value in zip(target.elts, node.value.elts, strict=False):
                        if isinstance(part, ast.Name) and part.id == name:
                            yield value
        if (
            isinstance(node, ast.AugAssign | ast.NamedExpr | ast.AnnAssign)
            and _name(node.target) == name
            and node.value
        ):
            yield node.value
