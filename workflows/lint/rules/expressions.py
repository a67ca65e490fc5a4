"""Argo's expression languages, as far as the runner's grammars can tell.

They cover less than Argo does. What they do not parse is an error only where a fault shows in the text itself: a
bracket or a quote left open, a single ``=``. Argo looks into none of these before it runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lark import Token, Tree

from workflows.argo import expressions
from workflows.argo.document import Document, section, strings
from workflows.argo.tags import EXPRESSION_TAG, TAG
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
"""What a CronWorkflow's ``when`` and ``stopStrategy`` know (Argo: docs/cron-workflows.md)."""


def when_syntax(document: Document) -> Iterator[Violation]:
    """A `when` of a task or step can't be evaluated: something is left open, a side is missing, or text with spaces or
    other signs stands without quotes.
    """
    for path, when in _whens(document):
        if fault := _when_fault(when):
            yield Violation(path, *fault)


def when_doubtful(document: Document) -> Iterator[Violation]:
    """A `when` uses more than comparisons joined by `&&`, `||` and `!`, so that its form was not checked."""
    for path, when in _whens(document):
        if not _parses_as_when(when) and not _when_fault(when):
            what = f"`{when}` is more than this linter reads"
            yield Violation(path, what, "compare with ==, !=, <, >, =~ and join with &&, ||; or write '{{= ... }}'")


def expression_syntax(document: Document) -> Iterator[Violation]:
    """An expression of a retry, a hook, an output, a `stopStrategy` or a `{{=...}}` tag leaves a bracket or a
    quote open, has a single `=`, or stands in braces where none belong.
    """
    for path, expression in _bare(document):
        if EXPRESSION_TAG.search(expression):
            yield Violation(path, "an expression stands bare here", "leave the braces {{= }} out")
        elif fault := _fault(TAG.sub("x", expression)):
            yield Violation(path, fault, "see expr-lang.org for how expressions are written")
    for template in document.templates:
        for path, text in strings(template.value, template.path, frozenset(("dag", "steps"))):
            yield from _tag_expressions(path, text)
        for task in template.tasks:
            for path, text in strings(task.value, task.path, frozenset(("inline",))):
                yield from _tag_expressions(path, text)


def retry_expression(document: Document) -> Iterator[Violation]:
    """`retryStrategy.expression` uses a `lastRetry` field that does not exist, or compares one, all of which are text,
    with a number.
    """
    places = [(join(document.path, "templateDefaults"), document.defaults)]
    places += [(template.path, template.value) for template in document.templates]
    for path, value in places:
        text = str(section(value, "retryStrategy").get("expression", ""))
        expression = _parsed(text)
        if expression is None:
            continue
        path = join(path, "retryStrategy.expression")
        for name in expressions.variables_of(expression):
            if name.startswith("lastRetry.") and name not in expressions.RETRY_VARIABLES:
                yield Violation(path, f"`{name}` does not exist", unknown(name, sorted(expressions.RETRY_VARIABLES)))
        for name in _compared_with_number(expression):
            yield Violation(path, f"`{name}` is text and never equals a number", f"write asInt({name})")


def cron_expression(document: Document) -> Iterator[Violation]:
    """`stopStrategy.expression` of a CronWorkflow uses a name that it does not know."""
    if document.kind == "CronWorkflow":
        text = str(section(section(document.value, "spec"), "stopStrategy").get("expression", ""))
        expression = _parsed(text)
        for name in expressions.variables_of(expression) if expression is not None else ():
            known = ".".join(name.split(".")[:2])
            if known not in CRON_VARIABLES:
                yield Violation(
                    "spec.stopStrategy.expression", f"`{name}` is not known here", unknown(known, CRON_VARIABLES)
                )


def hook_expression(document: Document) -> Iterator[Violation]:
    """A hook that is not called `exit` has no `expression` to say when it runs."""
    for call in document.calls:
        around, _, name = call.path.rpartition(".")
        if around.endswith("hooks") and name != "exit" and not call.value.get("expression"):
            fix = """add expression, as in: workflow.status == "Failed"; or call the hook exit"""
            yield Violation(call.path, f"the hook `{name}` has no expression", fix)


def _whens(document: Document) -> Iterator[tuple[str, str]]:
    for template in document.templates:
        for task in template.tasks:
            when = task.value.get("when")
            if isinstance(when, str) and when.strip() and not EXPRESSION_TAG.search(when):
                yield join(task.path, "when"), when


def _parses_as_when(when: str) -> bool:
    try:
        expressions.parse_when(TAG.sub("x", when))
    except (expressions.ExpressionError, RecursionError):
        return False
    return True


def _when_fault(when: str) -> tuple[str, str] | None:
    """What is certainly wrong with a ``when``, and the fix."""
    if _parses_as_when(when):
        return None
    text = TAG.sub("x", when)
    bare = _QUOTED.sub("0", text)
    if fault := _fault(text):
        return f"`{when}`: {fault}", "as in: '{{tasks.a.outputs.parameters.b}} == yes && {{item}} != 0'"
    if _ENDS.search(bare):
        return f"`{when}` has a sign with nothing beside it", "put what is compared on both sides"
    if word := _TEXT_WITH_SIGNS.search(bare):
        return f"`{word[0]}` needs quotes: Argo takes its signs for operators", f"write '{word[0]}' in quotes"
    if (word := _TEXT_WITH_SPACE.search(bare)) and not _ARITHMETIC.search(bare):
        fix = "quote text with spaces; write && and || for and, or"
        return f"`{word[0]}`: words side by side are no expression", fix
    return None


def _bare(document: Document) -> Iterator[tuple[str, str]]:
    """Path and text of every expression that stands without braces."""
    found = [(join(document.path, "templateDefaults.retryStrategy.expression"),
              section(document.defaults, "retryStrategy").get("expression"))]  # fmt: skip
    if document.kind == "CronWorkflow":
        stop = section(section(document.value, "spec"), "stopStrategy")
        found.append(("spec.stopStrategy.expression", stop.get("expression")))
    found += [(join(call.path, "expression"), call.value.get("expression")) for call in document.calls]
    for template in document.templates:
        retry = section(template.value, "retryStrategy")
        found.append((join(template.path, "retryStrategy.expression"), retry.get("expression")))
        for path, value in template.parts("outputs", "parameters"):
            found.append((join(path, "valueFrom.expression"), section(value, "valueFrom").get("expression")))
        for path, value in template.parts("outputs", "artifacts"):
            found.append((join(path, "fromExpression"), value.get("fromExpression")))
    yield from ((path, text) for path, text in found if isinstance(text, str) and text)


def _tag_expressions(path: str, text: str) -> Iterator[Violation]:
    for match in EXPRESSION_TAG.finditer(text):
        inside, closed, _ = text[match.end() :].partition("}}")
        # A map or a closure may hold }} itself: then nothing can be said.
        fault = "" if inside.count("{") else _fault(inside)
        if not closed:
            yield Violation(path, "the tag `{{=` is not closed", "close it with }}")
        elif fault:
            yield Violation(path, f"`{{{{={inside}}}}}`: {fault}", "see expr-lang.org for how expressions are written")


def _fault(text: str) -> str:
    """What anybody can see to be wrong; empty when nothing is."""
    bare = _QUOTED.sub("0", text)
    if '"' in bare or "'" in bare:
        return "a quote is left open"
    waiting: list[str] = []
    for sign in bare:
        if sign in _CLOSED_BY:
            waiting.append(_CLOSED_BY[sign])
        elif sign in ")]}" and (not waiting or waiting.pop() != sign):
            return f"`{sign}` closes nothing"
    if waiting:
        return f"`{waiting[-1]}` is missing"
    single = _SINGLE_SIGN.search(bare)
    # | is a pipe in expressions, and let x = 1; an assignment.
    if single and single[1] == "=" and "let " not in bare:
        return "a single `=` compares nothing; write =="
    return ""


def _parsed(text: str) -> expressions.Expression | None:
    try:
        return expressions.parse_expression(TAG.sub("0", text)) if text else None
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
