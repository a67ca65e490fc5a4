from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.argo import expressions
from workflows.argo.expressions import ExpressionError

TASKS = ["a", "b-1", "Load"]
RESULTS = ["Succeeded", "Failed", "Errored", "Skipped", "Omitted", "Daemoned", "AnySucceeded", "AllFailed"]
spaces = st.sampled_from(["", " ", "  ", "\n"])

operands = st.builds(
    lambda task, result: f"{task}{result}", st.sampled_from(TASKS), st.sampled_from(["", *(f".{r}" for r in RESULTS)])
)
depends_texts = st.recursive(
    operands,
    lambda inner: st.one_of(
        st.builds(
            lambda left, s, o, right: f"{left}{s}{o} {right}", inner, spaces, st.sampled_from(["&&", "||"]), inner
        ),
        st.builds(lambda s, x: f"!{s}({x})", spaces, inner),
        st.builds(lambda s, x: f"({s}{x})", spaces, inner),
    ),
    max_leaves=8,
)
facts_of_tasks = st.fixed_dictionaries({task: st.sets(st.sampled_from(RESULTS)) for task in TASKS})


@given(depends_texts, facts_of_tasks)
def test_depends_agrees_with_python(text: str, facts: dict[str, set[str]]) -> None:
    def operand(match: re.Match[str]) -> str:
        task, result = match[1], match[2]
        expected = {result} if result else {"Succeeded", "Skipped", "Daemoned"}
        return str(bool(facts[task] & expected))

    python = re.sub(r"([A-Za-z][-\w]*)(?:\.(\w+))?", operand, text)
    python = python.replace("&&", " and ").replace("||", " or ").replace("!", " not ").replace("\n", " ")
    got = expressions.evaluate_depends(expressions.parse_depends(text), lambda task, result: result in facts[task])
    assert got is eval(python)


@pytest.mark.parametrize(
    "text", ["", "a &", "a b", "a.Bad", "a.succeeded", "&& a", "(a", "a && (b || c", "a.Succeeded.x", "a == b"]
)
def test_depends_that_does_not_parse_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        expressions.parse_depends(text)


def test_tasks_of_a_depends_are_unique_and_ordered() -> None:
    tree = expressions.parse_depends("b.Failed || a && !b || c-d.Skipped")
    assert expressions.tasks_of(tree) == ["b", "a", "c-d"]
    assert set(expressions.results_of(tree)) == {("b", "Failed"), ("c-d", "Skipped")}


numbers = st.one_of(
    st.integers(0, 99), st.floats(0, 99).map(lambda x: round(x, 3)).filter(lambda x: "e" not in repr(x))
)
words = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True).filter(lambda w: w not in ("true", "false"))
quoted = st.text(st.characters(codec="ascii", exclude_characters="'\\\n\r", exclude_categories=["Cc"]), max_size=6)
number_pairs = st.tuples(numbers, numbers).map(lambda p: (str(p[0]), str(p[1]), *p))
text_pairs = st.tuples(
    st.one_of(words.map(lambda w: (w, w)), quoted.map(lambda q: (f"'{q}'", q))),
    st.one_of(words.map(lambda w: (w, w)), quoted.map(lambda q: (f"'{q}'", q))),
).map(lambda p: (p[0][0], p[1][0], p[0][1], p[1][1]))
ORDER = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
comparisons = st.builds(
    lambda pair, sign: (f"{pair[0]} {sign} {pair[1]}", ORDER[sign](pair[2], pair[3])),
    st.one_of(number_pairs, text_pairs),
    st.sampled_from(list(ORDER)),
)
when_pairs = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds(lambda x, y: (f"({x[0]}) && ({y[0]})", x[1] and y[1]), inner, inner),
        st.builds(lambda x, y: (f"({x[0]}) || ({y[0]})", x[1] or y[1]), inner, inner),
        st.builds(lambda x: (f"!({x[0]})", not x[1]), inner),
    ),
    max_leaves=6,
)


@given(when_pairs)
def test_when_agrees_with_python(pair: tuple[str, bool]) -> None:
    text, expected = pair
    assert expressions.evaluate_when(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("true", True),
        ("true == true", True),
        ("a == a && 1 < 2 || false", True),
        ("false && false || true", True),
        ("true || false && false", True),
        ("!false == true", True),
        ("10 > 9", True),
        ("-1 < 0.5", True),
        ("'10' < '9'", True),
        ("1 == '1'", False),
        ("abc =~ '^a.c$'", True),
        ("abc !~ b", False),
        ("0x10 == 16", True),
        ('"it\'s" == "it\'s"', True),
        (r"'it\'s' == 'it\'s'", True),
    ],
)
def test_when_agrees_with_govaluate(text: str, expected: bool) -> None:
    assert expressions.evaluate_when(text) is expected


@pytest.mark.parametrize(
    "text",
    [
        " == x",
        "a",
        "1",
        "a-b == c",
        "1234e56 == x",
        "sha256:ab == x",
        "1 < a",
        "a && b",
        "'a",
        "a =~ '('",
        "!a",
        "a in (b)",
    ],
)
def test_when_without_value_raises(text: str) -> None:
    with pytest.raises(ExpressionError):
        expressions.evaluate_when(text)


LAST = {
    "retries": "2",
    "lastRetry.exitCode": "137",
    "lastRetry.status": "Failed",
    "lastRetry.duration": "1.5",
    "lastRetry.message": "pod deleted",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lastRetry.status == 'Error' || asInt(lastRetry.exitCode) not in [2, 3, 4, 5, 6]", True),
        ("asInt(lastRetry.exitCode) in [137, 143]", True),
        ('asInt(lastRetry.exitCode) == 137 and not (lastRetry.status == "Error")', True),
        ("lastRetry.exitCode == 137", False),
        ("lastRetry.exitCode == '137'", True),
        ("lastRetry.message matches 'imminent node shutdown|pod deleted'", True),
        ("lastRetry.message contains 'evicted'", False),
        ("lastRetry.message not contains 'evicted' && lastRetry.message startsWith 'pod'", True),
        ("asFloat(lastRetry.duration) < 2 or false", True),
        ("!(asInt(lastRetry.exitCode) > -1)", False),
        ("lastRetry.status in ['Error', 'Failed']", True),
        ("asInt(retries) < 2", False),
        ("asInt(lastRetry.exitCode) in [-1, 137] && asInt(retries) < 3", True),
    ],
)
def test_retry_expressions(text: str, expected: bool) -> None:
    assert expressions.evaluate_retry(text, LAST) is expected


@pytest.mark.parametrize(
    "text", ["asInt(lastRetry.code) > 1", "sprig.int(x)", "a ?? b", "lastRetry.exitCode >", "attempts > 1", "[1, 2"]
)
def test_invalid_retry_expression_is_an_error(text: str) -> None:
    with pytest.raises(ExpressionError):
        expressions.parse_retry(text)


@pytest.mark.parametrize(
    "text", ["asInt(lastRetry.status) > 1", "lastRetry.exitCode > 1", "asInt(1, 2) == 1", "1 in 2", "'a'"]
)
def test_retry_expressions_without_a_value(text: str) -> None:
    with pytest.raises(ExpressionError):
        expressions.evaluate_retry(text, LAST)
