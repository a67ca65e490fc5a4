"""The good examples of docs/LINT_RULES.md are parts of documents without errors; bad ones come from bad/RULE.yaml."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from test_lint_page import GOOD, OPTIONAL

from workflows.lint import lint

NOT_YAML = {"nothing-to-lint", "outside-reference", "suppression"}
"""Examples that are commands or comments."""
CONTAINER = {"image": "ghcr.io/acme/tool:1.0", "command": ["tool"], "args": ["{{inputs.parameters.x}}"]}
LEAF = {
    "name": "run",
    "inputs": {"parameters": [{"name": "x", "default": "1", "enum": ["1", "yes"]}, {"name": "data", "default": "1"}]},
    "outputs": {"parameters": [{"name": "y", "valueFrom": {"path": "/tmp/y", "default": ""}}]},
    "retryStrategy": {"limit": "2"},
    "container": {
        **CONTAINER,
        "env": [{"name": "MODE", "value": "a"}],
        "volumeMounts": [{"name": "work", "mountPath": "/mnt/data"}],
        "resources": {"limits": {"cpu": "1"}},
    },
    "metrics": {"prometheus": [{"name": "runs", "help": "Runs", "counter": {"value": "1"}}]},
}
TASKS = [
    {"name": "a", "template": "run"},
    {"name": "b", "template": "run", "depends": "a.Succeeded || a.Failed"},
    {
        "name": "c",
        "template": "takes",
        "depends": "a",
        "arguments": {"artifacts": [{"name": "data", "raw": {"data": "x"}}]},
    },
    {"name": "d", "template": "run", "depends": "a", "arguments": {"parameters": [{"name": "x", "value": "1"}]}},
    {"name": "e", "template": "run", "depends": "a", "hooks": {"exit": {"template": "run"}}},
]
TEMPLATES = [
    {
        "name": "loops",
        "outputs": {"parameters": [{"name": "p", "value": "1"}]},
        "steps": [
            [
                {"name": "a", "template": "main"},
                {"name": "flip", "template": "run"},
                {"name": "list", "template": "run"},
            ],
            [
                {"name": "b", "template": "run", "when": "1 == 1"},
                {"name": "f", "template": "run", "arguments": {"parameters": [{"name": "x", "value": "1"}]}},
                {"name": "h", "template": "run", "withItems": [1]},
            ],
        ],
    },
    {
        "name": "main",
        "dag": {"tasks": TASKS},
        "outputs": {"parameters": [{"name": "o", "valueFrom": {"parameter": "{{tasks.a.outputs.parameters.y}}"}}]},
    },
    LEAF,
    {
        **LEAF,
        "name": "takes",
        "inputs": {"parameters": LEAF["inputs"]["parameters"], "artifacts": [{"name": "data", "path": "/data"}]},
    },
    {**LEAF, "name": "gives", "outputs": {"artifacts": [{"name": "data", "path": "/data"}]}},
    {**LEAF, "name": "make"},
    {**LEAF, "name": "use"},
    {**LEAF, "name": "report"},
    {**LEAF, "name": "wait", "container": None, "suspend": {"duration": "1m"}},
    {**LEAF, "name": "third", "sidecars": [{"name": "side", "image": "ghcr.io/acme/tool:1.0", "command": ["tool"]}]},
]
SPEC: dict[str, Any] = {
    "entrypoint": "loops",
    "arguments": {"parameters": [{"name": "items", "value": "[]"}]},
    "podGC": {"strategy": "OnPodCompletion"},
    "volumes": [{"name": "work", "emptyDir": {}}],
    "hooks": {"exit": {"template": "run"}},
    "templates": TEMPLATES,
}
API = "argoproj.io/v1alpha1"
BASES = [
    {"apiVersion": API, "kind": "Workflow", "metadata": {"name": "sample"}, "spec": SPEC},
    {
        "apiVersion": API,
        "kind": "CronWorkflow",
        "metadata": {"name": "sample"},
        "spec": {
            "schedules": ["@daily"],
            "stopStrategy": {"expression": "cronworkflow.failed >= 1"},
            "workflowSpec": SPEC,
        },
    },
    {"apiVersion": API, "kind": "Workflow", "metadata": {"name": "sample"}, "spec": {"arguments": {"parameters": []}}},
]
SHARED = {
    "apiVersion": API,
    "kind": "WorkflowTemplate",
    "metadata": {"name": "shared"},
    "spec": {**SPEC, "hooks": None},
}


def without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_none(part) for key, part in value.items() if part is not None}
    return [without_none(part) for part in value] if isinstance(value, list) else value


SHARED_TEXT = json.dumps(without_none(SHARED))


def documents_with(example: Any) -> Iterator[Any]:
    """Yield documents that have the example at one place: fields in a mapping, items in a list, in turn."""
    for base in BASES:
        document = copy.deepcopy(without_none(base))
        for node in list(nodes(document)):
            before = copy.deepcopy(node)
            if isinstance(node, dict) and isinstance(example, dict):
                node.update(copy.deepcopy(example))
            elif isinstance(node, list) and isinstance(example, list) and node and type(node[0]) is type(example[0]):
                added = copy.deepcopy(example)
                names = {item["name"] for item in added if isinstance(item, dict)}
                node[:] = [
                    item for item in node if not isinstance(item, dict) or item.get("name") not in names
                ] + added
            else:
                continue
            yield document
            node.clear()
            node.update(before) if isinstance(node, dict) else node.extend(before)


def nodes(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from nodes(part)


@cache
def usual() -> set[str]:
    """Return the findings of the base documents themselves, which are advice."""
    return {found for base in BASES for found in findings(without_none(base))}


def findings(document: Any) -> list[str]:
    # JSON is YAML, and no text in it is read as something else (`y`).
    text = f"{json.dumps(document)}\n---\n{SHARED_TEXT}\n"
    report = lint([("example.yaml", text)], enable=OPTIONAL)
    return [f"{found.rule}: {found.problem.path}: {found.problem.message}" for found in report.findings]


def test_the_document_around_an_example_has_no_errors():
    wrong = ("unknown", "wrong", "missing", "template", "duplicate")
    assert [found for found in usual() if found.startswith(wrong) and "template ``" not in found] == []


@pytest.mark.parametrize("rule", sorted(set(GOOD) - NOT_YAML))
def test_good_example_is_part_of_a_document_without_errors(rule):
    best: list[str] | None = None
    for document in documents_with(yaml.safe_load(GOOD[rule])):
        found = [text for text in findings(document) if text not in usual() or text.startswith(f"{rule}:")]
        if best is None or len(found) < len(best):
            best = found
        if not found:
            return
    assert best == []
