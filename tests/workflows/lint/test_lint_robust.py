"""The linter neither crashes nor hangs on invalid documents, and accepts what Argo accepts."""

import copy
import json
import signal
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.lint import lint

DATA = Path(__file__).parents[2] / "data" / "lint"
LEAF = {"name": "run", "container": {"image": "acme/tool:1.0", "command": ["tool"]}}


def places(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


GOOD = [list(yaml.safe_load_all(path.read_text())) for path in sorted((DATA / "good").glob("*.yaml"))]
PLACES = [(index, path) for index, documents in enumerate(GOOD) for path in places(documents)]
TEXTS = ["", "x", "{{tasks.x.y}}", "{{=", "{{", "}}", "{{item}}", "((", '"', "a && (b", "a" * 300, "\U0001f600", "="]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(TEXTS))
VALUES = st.one_of(
    SCALARS,
    st.sampled_from([[], {}, [[]], [None], {"name": "x"}, [{"name": "x"}], ["a"], [{}]]),
    st.sampled_from(PLACES).map(lambda place: at(GOOD[place[0]], place[1])),
)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
def test_a_changed_document_never_crashes_the_linter(changes):
    which = changes[0][0][0]
    documents = copy.deepcopy(GOOD[which])
    for (index, path), value in changes:
        try:
            parent = at(documents, path[:-1]) if index == which else None
            if parent is not None:
                parent[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            pass  # an earlier change removed this path
    report = lint([("changed.yaml", yaml.safe_dump_all(documents))])
    assert all(str(finding).startswith("changed.yaml") for finding in report.findings)


@settings(max_examples=100)
@given(st.text(max_size=200))
def test_no_text_crashes_the_linter(text):
    assert lint([("any.yaml", text)]).errors


def workflow(*templates, **spec):
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "sample"},
        "spec": {"entrypoint": "main", "templates": list(templates), **spec},
    }


def rules(document):
    return sorted({finding.rule for finding in lint([("a.json", json.dumps(document))]).findings})


@pytest.fixture
def alarm():
    """Fail a test that hangs."""

    def hangs(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_unnamed_recursive_templates_terminate(alarm):
    unnamed = {"dag": {"tasks": [{"name": "a", "template": ""}, {"name": "b", "onExit": ""}]}}
    assert "name-syntax" in rules(workflow({"name": "", **unnamed}, entrypoint=""))


def test_template_that_refers_to_its_document_terminates(alarm):
    document = workflow({"name": "main", "steps": [[{"name": "a", "templateRef": {"name": "s", "template": "main"}}]]})
    document = {**document, "kind": "WorkflowTemplate", "metadata": {"name": "s"}}
    document["spec"]["workflowTemplateRef"] = {"name": "s"}
    assert rules(document) == ["endless-recursion", "templates-beside-reference"]


def test_too_deep_nesting_is_an_error(alarm):
    inner = LEAF
    for _ in range(150):
        inner = {"name": "main", "dag": {"tasks": [{"name": "a", "inline": {**inner}}]}}
    assert rules(workflow(inner)) == ["syntax"]
    deep = {"name": "a", "template": "run", "depends": "(" * 3000 + "b" + ")" * 3000}
    main = {"name": "main", "dag": {"tasks": [deep, {"name": "b", "template": "run"}]}}
    assert rules(workflow(main, LEAF)) in ([], ["depends-syntax"], ["syntax"])


def test_long_chain_of_tasks(alarm):
    tasks = [{"name": f"t{n}", "template": "run", **({"depends": f"t{n - 1}"} if n else {})} for n in range(2000)]
    assert rules(workflow({"name": "main", "dag": {"tasks": tasks}}, LEAF)) == ["crd-size"]
    tasks[0]["depends"] = "t1999"
    assert rules(workflow({"name": "main", "dag": {"tasks": tasks}}, LEAF)) == ["crd-size", "dependency-cycle"]


def test_numbers_are_accepted_where_argo_accepts_them():
    leaf = {
        **LEAF,
        "name": "main",
        "retryStrategy": {"limit": 3, "backoff": {"duration": "1", "factor": 2}},
        "inputs": {"parameters": [{"name": "n", "default": 1.5}, {"name": "b", "value": True, "enum": [True, False]}]},
        "activeDeadlineSeconds": 60,
        "podResources": {"limits": {"cpu": 0.5, "memory": "1Gi"}},
    }
    assert rules(workflow(leaf)) == ["unquoted-number"]


def test_null_is_absent():
    assert rules(workflow({**LEAF, "name": "main", "timeout": None, "dag": None}, onExit=None)) == []
    assert rules(workflow({"name": "main", "suspend": None})) == ["template-type"]


def test_wrong_type_is_reported_without_its_consequences():
    assert rules(workflow({"name": "main", "dag": "none"})) == ["wrong-type"]
    assert rules(workflow("text")) == ["entrypoint", "wrong-type"]
    inputs = {"parameters": [{"name": "x", "value": []}]}  # Go reads it as the text "[]"
    assert rules(workflow({**LEAF, "name": "main", "inputs": inputs})) == ["wrong-type"]


def test_items_that_are_no_list_are_an_error():
    main = {"name": "main", "steps": [[{"name": "a", "template": "run", "withItems": 3}]]}
    assert rules(workflow(main, LEAF)) == ["wrong-type"]
