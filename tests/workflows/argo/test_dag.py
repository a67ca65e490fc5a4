"""The rules of Argo's dag.go, on phases only."""

from __future__ import annotations

import pytest

from workflows.argo.dag import Graph
from workflows.argo.phase import Phase
from workflows.argo.workflow import Task

S, F, E, K, O = Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR, Phase.SKIPPED, Phase.OMITTED  # noqa: E741


def graph(**depends: str) -> Graph:
    return Graph([Task(name=name, depends=text) for name, text in depends.items()])


@pytest.mark.parametrize(
    ("depends", "phases", "expected"),
    [
        ({"a": "", "b": "a"}, {"a": S, "b": S}, S),
        ({"a": "", "b": "a"}, {"a": F, "b": O}, F),
        ({"a": "", "b": "a"}, {"a": E, "b": O}, E),
        ({"a": "", "b": "a.Failed"}, {"a": F, "b": S}, S),  # the failure was handled
        ({"a": "", "b": "a.Failed"}, {"a": S, "b": O}, S),  # nothing to handle
        ({"a": "", "b": "a", "c": "b.Succeeded"}, {"a": S, "b": K, "c": O}, S),  # skipped, and what needs it
        ({"a": "", "b": "a", "c": "b"}, {"a": F, "b": O, "c": O}, F),
        ({"a": "", "b": "", "c": "a || b"}, {"a": F, "b": S, "c": S}, S),
        ({"a": "", "b": "", "c": "a && b"}, {"a": F, "b": S, "c": O}, F),
        ({"a": "", "b": ""}, {"a": S, "b": F}, F),
        ({"a": "", "b": "a"}, {"a": F, "b": K}, F),
    ],
)
def test_phase_of_a_dag(depends: dict[str, str], phases: dict[str, Phase], expected: Phase) -> None:
    assert graph(**depends).assess(phases) is expected


def test_first_failed_leaf_with_fail_fast_else_last() -> None:
    two = graph(a="", b="")
    assert two.assess({"a": F, "b": E}, fail_fast=True) is F
    assert two.assess({"a": F, "b": E}, fail_fast=False) is E


def test_root_failure_is_the_task_that_ran() -> None:
    chain = graph(a="", b="a", c="b", d="")
    assert chain.root_failure({"a": F, "b": O, "c": O, "d": S}) == "a"
    assert chain.root_failure({"a": S, "b": S, "c": S, "d": S}) == ""


def test_handled_failure_is_not_the_root_failure() -> None:
    handled = graph(a="", notify="a.Failed", z="")
    assert handled.root_failure({"a": F, "notify": S, "z": F}) == "z"


def test_bare_name_accepts_skipped_but_not_omitted() -> None:
    pair = graph(a="", b="a")
    assert pair.depends_satisfied("b", {"a": K}, {})
    assert not pair.depends_satisfied("b", {"a": O}, {})


def test_items_determine_any_succeeded_and_all_failed() -> None:
    fan = graph(f="", any="f.AnySucceeded", all="f.AllFailed")
    assert fan.depends_satisfied("any", {"f": F}, {"f": [F, S]})
    assert not fan.depends_satisfied("all", {"f": F}, {"f": [F, S]})
    assert fan.depends_satisfied("all", {"f": F}, {"f": [F, F]})
    assert not fan.depends_satisfied("all", {"f": E}, {"f": [F, E]})


def test_cycles_are_found_in_cycles_only() -> None:
    assert graph(a="c", b="a", c="b").cycle() == ["a", "c", "b", "a"]
    assert graph(a="a").cycle() == ["a", "a"]
    assert graph(a="", b="a", c="a", d="b && c").cycle() == []
    assert graph(x="", a="x && b", b="a").cycle() == ["a", "b", "a"]


def test_ancestors_are_transitive() -> None:
    assert graph(a="", b="a", c="b.Failed", d="").ancestors("c") == {"a", "b"}
