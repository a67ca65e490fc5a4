"""Argo's three expression languages: ``depends``, ``when`` and ``retryStrategy.expression``.

Each has a grammar in this directory.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import LarkError, UnexpectedInput

Expression = Tree[Token] | Token

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {"asInt": int, "asFloat": float, "int": int, "float": float}
RETRY_VARIABLES = {
    "retries",
    *(f"lastRetry.{name}" for name in ("exitCode", "status", "duration", "message")),
}  # all are strings (Argo: buildRetryStrategyLocalScope)


class ExpressionError(ValueError):
    """An expression does not parse, or has no value."""


@lru_cache(maxsize=4096)
def parse_depends(text: str) -> Expression:
    """Parse ``depends``; see ``evaluate_depends``."""
    return _parse("depends", text)


def tasks_of(depends: Expression) -> list[str]:
    """Return the names of the tasks in a ``depends``, in order, without duplicates."""
    return list(dict.fromkeys(str(token) for token in _tokens(depends) if token.type == "TASK"))


def results_of(depends: Expression) -> Iterator[tuple[str, str]]:
    """Yield task and result of every ``task.Result`` in a ``depends``."""
    if isinstance(depends, Tree):
        for tree in depends.find_data("result"):
            yield str(tree.children[0]), str(tree.children[1])


def evaluate_depends(depends: Expression, has_result: Callable[[str, str], bool]) -> bool:
    """Return True if a ``depends`` is satisfied; ``has_result(task, result)`` answers for a single task.

    A bare task name means Succeeded, Skipped or Daemoned (Argo: ``expandDependency``).
    """
    match depends:
        case Tree(data="or", children=parts):
            return any(evaluate_depends(part, has_result) for part in parts)
        case Tree(data="and", children=parts):
            return all(evaluate_depends(part, has_result) for part in parts)
        case Tree(data="negation", children=[part]):
            return not evaluate_depends(part, has_result)
        case Tree(data="result", children=[task, result]):
            return has_result(str(task), str(result))
        case Tree(data="task", children=[task]):
            return any(has_result(str(task), result) for result in ("Succeeded", "Skipped", "Daemoned"))
    raise ExpressionError(f"not a depends expression: {depends}")


@lru_cache(maxsize=4096)
def parse_when(text: str) -> Expression:
    """Parse ``when`` with its tags replaced."""
    return _parse("when", text)


def evaluate_when(text: str) -> bool:
    """Return the value of a ``when`` with its tags replaced; an empty one is true.

    Raises:
        ExpressionError: it does not parse, or its operands cannot be compared.
    """
    return _boolean(_value(parse_when(text), {})) if text else True


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """Parse an expression (of a retry, a hook, a ``stopStrategy``) with any variables."""
    return _parse("retry", text)


def variables_of(expression: Expression) -> list[str]:
    """Return the dotted names in an expression, in order, without duplicates."""
    trees = expression.find_data("variable") if isinstance(expression, Tree) else ()
    return list(dict.fromkeys(".".join(str(child) for child in tree.children) for tree in trees))


def parse_retry(text: str) -> Expression:
    """Parse ``retryStrategy.expression`` and check its variables and functions."""
    expression = parse_expression(text)
    for tree in expression.iter_subtrees() if isinstance(expression, Tree) else ():
        name = ".".join(str(child) for child in tree.children if isinstance(child, Token))
        if tree.data == "variable" and name not in RETRY_VARIABLES:
            raise ExpressionError(f"`{name}` is not one of {', '.join(sorted(RETRY_VARIABLES))}")
        if tree.data == "call" and (function := str(tree.children[0])) not in _FUNCTIONS:
            raise ExpressionError(f"`{function}` is not one of {', '.join(_FUNCTIONS)}")
    return expression


def evaluate_retry(text: str, last_retry: Mapping[str, str]) -> bool:
    """Return True if a ``retryStrategy.expression`` allows another attempt.

    Args:
        text: the expression.
        last_retry: values of all ``RETRY_VARIABLES``.

    Raises:
        ExpressionError: it has no value, for example ``asInt`` of a string that is not a number.
    """
    return _boolean(_value(parse_retry(text), last_retry))


@cache
def _grammar(name: str) -> Lark:
    return Lark((Path(__file__).parent / f"{name}.lark").read_text(), parser="lalr")


def _parse(name: str, text: str) -> Expression:
    try:
        return _grammar(name).parse(text)
    except UnexpectedInput as error:
        position = f" at character {error.column}" if getattr(error, "column", -1) > 0 else ""
        raise ExpressionError(f"`{text}` does not parse{position}") from None
    except LarkError as error:
        raise ExpressionError(f"`{text}` does not parse: {error}") from None


def _tokens(expression: Expression) -> Iterator[Token]:
    if isinstance(expression, Token):
        yield expression
    else:
        for child in expression.children:
            yield from _tokens(child)


def _value(expression: Expression, variables: Mapping[str, str]) -> Any:
    match expression:
        case Tree(data="or", children=parts):
            return any(_boolean(_value(part, variables)) for part in parts)
        case Tree(data="and", children=parts):
            return all(_boolean(_value(part, variables)) for part in parts)
        case Tree(data="negation", children=[part]):
            return not _boolean(_value(part, variables))
        case Tree(data="minus", children=[part]):
            return -_number(_value(part, variables))
        case Tree(data="comparison", children=[left, sign, right]):
            return _compare(_value(left, variables), " ".join(str(sign).split()), _value(right, variables))
        case Tree(data="list", children=parts):
            return [_value(part, variables) for part in parts if part is not None]
        case Tree(data="variable", children=names):
            return variables[".".join(str(name) for name in names)]
        case Tree(data="call", children=[name, *arguments]):
            return _call(str(name), [_value(part, variables) for part in arguments if part is not None])
        case Token(type="NUMBER"):
            return (
                int(expression, 16)
                if "x" in expression
                else float(expression)
                if "." in expression
                else int(expression)
            )
        case Token(type="BOOLEAN"):
            return expression == "true"
        case Token(type="STRING"):
            return re.sub(r"\\(.)", r"\1", expression[1:-1])
    return str(expression)


def _compare(left: Any, sign: str, right: Any) -> bool:
    if sign.startswith("not "):
        return not _compare(left, sign.removeprefix("not "), right)
    if sign in ("==", "!="):
        return _same(left, right) is (sign == "==")
    if sign == "in":
        if not isinstance(right, list):
            raise ExpressionError("`in` requires a list on the right")
        return any(_same(left, item) for item in right)
    if sign in _ORDER:
        if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
            raise ExpressionError(f"`{left}` and `{right}` cannot be compared with `{sign}`")
        return _ORDER[sign](left, right)
    if not (isinstance(left, str) and isinstance(right, str)):
        raise ExpressionError(f"`{sign}` requires strings, not `{left}` and `{right}`")
    if sign in ("=~", "!~", "matches"):
        try:
            return (re.search(right, left) is not None) is (sign != "!~")
        except re.error as error:
            raise ExpressionError(f"`{right}` is not a regular expression: {error}") from None
    return {"contains": right in left, "startsWith": left.startswith(right), "endsWith": left.endswith(right)}[sign]


def _same(left: Any, right: Any) -> bool:
    return bool(left == right) and (type(left) is type(right) or (_is_number(left) and _is_number(right)))


def _call(name: str, arguments: list[Any]) -> Any:
    if len(arguments) != 1:
        raise ExpressionError(f"`{name}` requires one argument")
    try:
        return _FUNCTIONS[name](arguments[0])
    except (TypeError, ValueError):
        raise ExpressionError(f"`{name}({arguments[0]!r})` is not a number") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: Any) -> Any:
    if not _is_number(value):
        raise ExpressionError(f"`{value}` is not a number")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ExpressionError(f"`{value}` is not a boolean")
    return value
