"""Expressions, by the grammars of ``workflows/argo``.

The grammars cover less than Argo. An expression that does not parse is an error only if it is certainly wrong: an open
bracket or quote, a single ``=``. Argo parses none of these before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lark import Token, Tree

from workflows.argo import expressions
from workflows.argo.document import Document, section, strings
from workflows.argo.tags import EXPRESSION_TAG, without_tags
from workflows.field_path import join
from workflows.lint.rules.rule import Violation
from workflows.spec.findings import unknown

_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`[^`]*`""")
_CLOSED_BY = {"(": ")", "[": "]", "{": "}"}
_SINGLE_SIGN = re.compile(r"(?<![=!<>~|&])(=(?![=~])|&(?!&)|\|(?!\|))")
_ENDS = re.compile(r"^\s*(==|!=|<=|>=|<|>|=~|&&|\|\|)|(==|!=|<=|>=|<|>|=~|!~|&&|\|\||!)\s*$")
_TEXT_WITH_SPACE = re.compile(r"[A-Za-z_]\w*\s+[A-Za-z_]\w*")
_TEXT_WITH_SIGNS = re.compile(r"[A-Za-z_]\w*[-/:@][\w./:@-]*")
_ARITHMETIC = re.compile(r"[-+*/%?:,]|\bin\b")
CRON_VARIABLES = (
    "cronworkflow.name", "cronworkflow.namespace", "cronworkflow.labels", "cronworkflow.annotations",
    "cronworkflow.failed", "cronworkflow.succeeded", "cronworkflow.lastScheduledTime",
)  # fmt: skip
"""Variables of ``when`` and ``stopStrategy`` of a CronWorkflow (Argo: docs/cron-workflows.md)."""


def when_syntax(document: Document) -> Iterator[Violation]:
    """A `when` of a task or step cannot be evaluated: a bracket or quote is open, an operand is missing, or a string
    with spaces or special characters is not quoted.
    """
    for path, when in _whens(document):
        if error := _when_error(when):
            yield Violation(path, *error)


def when_doubtful(document: Document) -> Iterator[Violation]:
    """A `when` uses more than comparisons with `&&`, `||` and `!`, so that its syntax was not checked."""
    for path, when in _whens(document):
        if not _parses_as_when(when) and not _when_error(when):
            message = f"`{when}` was not checked: its syntax is not supported"
            yield Violation(path, message, "use ==, !=, <, >, =~ with && and ||, or an expression tag '{{= ... }}'")


def expression_syntax(document: Document) -> Iterator[Violation]:
    """An expression of a retry, a hook, an output, a `stopStrategy` or a `{{=...}}` tag has an open bracket or quote,
    a single `=`, or braces where none are allowed.
    """
    for path, expression in _expression_fields(document):
        if EXPRESSION_TAG.search(expression):
            yield Violation(path, "this field is an expression and takes no tag", "remove the braces {{= }}")
        elif error := _find_error(without_tags(expression)):
            yield Violation(path, error, "see expr-lang.org for the syntax")
    for template in document.templates if EXPRESSION_TAG.search(document.text) else ():
        for path, text in strings(template.value, template.path, frozenset(("dag", "steps")), "{{"):
            yield from _tag_expressions(path, text)
        for task in template.tasks:
            for path, text in strings(task.value, task.path, frozenset(("inline",)), "{{"):
                yield from _tag_expressions(path, text)


def retry_expression(document: Document) -> Iterator[Violation]:
    """`retryStrategy.expression` uses an unknown `lastRetry` field, or compares one with a number: all of them are
    strings.
    """
    values = [(join(document.path, "templateDefaults"), document.defaults)]
    values += [(template.path, template.value) for template in document.templates]
    for path, value in values:
        text = str(section(value, "retryStrategy").get("expression", ""))
        expression = _parsed(text)
        if expression is None:
            continue
        path = join(path, "retryStrategy.expression")
        for name in expressions.variables_of(expression):
            if name.startswith("lastRetry.") and name not in expressions.RETRY_VARIABLES:
                yield Violation(path, f"unknown variable `{name}`", unknown(name, sorted(expressions.RETRY_VARIABLES)))
        for name in _compared_with_number(expression):
            yield Violation(path, f"`{name}` is a string and never equals a number", f"use asInt({name})")


def cron_expression(document: Document) -> Iterator[Violation]:
    """`stopStrategy.expression` of a CronWorkflow uses an unknown variable."""
    if document.kind == "CronWorkflow":
        text = str(section(section(document.value, "spec"), "stopStrategy").get("expression", ""))
        expression = _parsed(text)
        for name in expressions.variables_of(expression) if expression is not None else ():
            known = ".".join(name.split(".")[:2])
            if known not in CRON_VARIABLES:
                yield Violation(
                    "spec.stopStrategy.expression", f"unknown variable `{name}`", unknown(known, CRON_VARIABLES)
                )


def hook_expression(document: Document) -> Iterator[Violation]:
    """A hook other than `exit` has no `expression`, so it never runs."""
    for call in document.calls:
        parent, _, name = call.path.rpartition(".")
        if parent.endswith("hooks") and name != "exit" and not call.value.get("expression"):
            fix = """add expression, such as workflow.status == "Failed", or rename the hook to exit"""
            yield Violation(call.path, f"hook `{name}` has no expression", fix)


def _whens(document: Document) -> Iterator[tuple[str, str]]:
    for template in document.templates:
        for task in template.tasks:
            when = task.value.get("when")
            if isinstance(when, str) and when.strip() and not EXPRESSION_TAG.search(when):
                yield join(task.path, "when"), when


def _parses_as_when(when: str) -> bool:
    try:
        expressions.parse_when(without_tags(when))
    except (expressions.ExpressionError, RecursionError):
        return False
    return True


def _when_error(when: str) -> tuple[str, str] | None:
    """Return an error that is certain in a ``when``, and its fix."""
    if _parses_as_when(when):
        return None
    text = without_tags(when)
    bare = _QUOTED.sub("0", text)
    if error := _find_error(text):
        return f"`{when}`: {error}", "use an expression such as '{{tasks.a.outputs.parameters.b}} == yes'"
    if _ENDS.search(bare):
        return f"`{when}` has an operator without operand", "add the missing operand"
    if word := _TEXT_WITH_SIGNS.search(bare):
        return f"`{word[0]}` must be quoted: it contains operators", f"use '{word[0]}'"
    if (word := _TEXT_WITH_SPACE.search(bare)) and not _ARITHMETIC.search(bare):
        fix = "quote strings with spaces; use && and || for and, or"
        return f"`{word[0]}`: no operator between the words", fix
    return None


def _expression_fields(document: Document) -> Iterator[tuple[str, str]]:
    """Yield path and text of every expression in a field without braces."""
    fields = [(join(document.path, "templateDefaults.retryStrategy.expression"),
               section(document.defaults, "retryStrategy").get("expression"))]  # fmt: skip
    if document.kind == "CronWorkflow":
        stop = section(section(document.value, "spec"), "stopStrategy")
        fields.append(("spec.stopStrategy.expression", stop.get("expression")))
    fields += [(join(call.path, "expression"), call.value.get("expression")) for call in document.calls]
    for template in document.templates:
        retry = section(template.value, "retryStrategy")
        fields.append((join(template.path, "retryStrategy.expression"), retry.get("expression")))
        for path, value in template.parts("outputs", "parameters"):
            fields.append((join(path, "valueFrom.expression"), section(value, "valueFrom").get("expression")))
        for path, value in template.parts("outputs", "artifacts"):
            fields.append((join(path, "fromExpression"), value.get("fromExpression")))
    yield from ((path, text) for path, text in fields if isinstance(text, str) and text)


def _tag_expressions(path: str, text: str) -> Iterator[Violation]:
    for match in EXPRESSION_TAG.finditer(text):
        inside, closed, _ = text[match.end() :].partition("}}")
        # A mapping or a closure can contain }}: then the end is unknown.
        error = "" if inside.count("{") else _find_error(inside)
        if not closed:
            yield Violation(path, "the tag `{{=` is not closed", "close it with }}")
        elif error:
            yield Violation(path, f"`{{{{={inside}}}}}`: {error}", "see expr-lang.org for the syntax")


def _find_error(text: str) -> str:
    """Return a syntax error that is certain; empty when there is none."""
    bare = _QUOTED.sub("0", text)
    if '"' in bare or "'" in bare:
        return "a quote is not closed"
    expected: list[str] = []
    for sign in bare:
        if sign in _CLOSED_BY:
            expected.append(_CLOSED_BY[sign])
        elif sign in ")]}" and (not expected or expected.pop() != sign):
            return f"unexpected `{sign}`"
    if expected:
        return f"missing `{expected[-1]}`"
    single = _SINGLE_SIGN.search(bare)
    # | is a pipe, and let x = 1; an assignment.
    if single and single[1] == "=" and "let " not in bare:
        return "a single `=` is not an operator; use =="
    return ""


def _parsed(text: str) -> expressions.Expression | None:
    try:
        return expressions.parse_expression(without_tags(text, "0")) if text else None
    except (expressions.ExpressionError, RecursionError):
        return None


def _compared_with_number(expression: expressions.Expression) -> Iterator[str]:
    for tree in expression.find_data("comparison") if isinstance(expression, Tree) else ():
        sides = [tree.children[0], tree.children[2]]
        for side, other in (sides, sides[::-1]):
            name = ".".join(map(str, side.children)) if isinstance(side, Tree) and side.data == "variable" else ""
            numbers = other.children if isinstance(other, Tree) and other.data == "list" else [other]
            if name in expressions.RETRY_VARIABLES and any(
                isinstance(number, Token) and number.type == "NUMBER" for number in numbers
            ):
                yield name
