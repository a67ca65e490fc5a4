"""What is compiled is what the API server of a default Argo 4.1 takes, and what Argo 3.6 knows already.

The goldens are held to the CRD (``tests/data/argo``), closed against unknown fields, which the API server would drop.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data" / "argo"
GOLDENS = sorted((ROOT / "argo").glob("*.yaml"))
TYPES = "io.argoproj.workflow.v1alpha1."


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name)
def test_golden_is_accepted_by_the_api_server(path):
    assert [fault for document in documents(path) for fault in faults(document)] == []


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.name)
def test_golden_uses_only_fields_of_all_supported_argo_versions(path):
    assert [field for document in documents(path) for field in of_some_versions(document)] == []


def test_every_kind_is_among_the_goldens():
    kinds = {document["kind"] for path in GOLDENS for document in documents(path)}
    assert kinds == {"Workflow", "WorkflowTemplate", "ClusterWorkflowTemplate", "CronWorkflow"}


@pytest.mark.parametrize(
    ("kind", "spec", "fault"),
    [
        ("Workflow", {"entrypoin": "main"}, "$.spec: Additional properties are not allowed ('entrypoin' was"),
        ("Workflow", {"podGC": {"strategy": "Nonsense"}}, "$.spec.podGC.strategy: 'Nonsense' is not one of"),
        ("Workflow", {"templates": [{"name": "a_b"}]}, "$.spec.templates[0].name: 'a_b' does not match"),
        ("WorkflowTemplate", {"schedules": []}, "$.spec: Additional properties are not allowed ('schedules' was"),
        ("ClusterWorkflowTemplate", {"onExit": 1}, "$.spec.onExit: 1 is not of type 'string'"),
        ("CronWorkflow", {"schedule": "@daily"}, "$.spec: Additional properties are not allowed ('schedule' was"),
        ("CronWorkflow", {"workflowSpec": {"ttl": 1}}, "$.spec.workflowSpec: Additional properties are not"),
    ],
)
def test_the_check_reports(kind, spec, fault):
    document = {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": {}, "spec": spec}
    assert any(found.startswith(fault) for found in faults(document)), faults(document)


def test_fields_of_some_argo_versions_are_reported():
    locks = {"mutexes": [{"name": "x", "database": True}], "semaphore": {}}
    leaf = {"name": "leaf", "annotations": {}, "retryStrategy": {"backoff": {"cap": "1m"}}, "container": {}}
    spec = {"synchronization": locks, "templates": [leaf], "podPriority": 1, "executorPlugins": []}
    document = {"kind": "CronWorkflow", "metadata": {}, "spec": {"schedule": "@daily", "workflowSpec": spec}}
    assert sorted(of_some_versions(document)) == [
        "Backoff.cap came with 3.7",
        "CronWorkflowSpec.schedule went with 4.0",
        "Mutex.database came with 3.7",
        "Synchronization.semaphore went with 4.0",
        "Template.annotations came with 3.7",
        "WorkflowSpec.executorPlugins came with 4.1",
        "WorkflowSpec.podPriority went with 3.7",
    ]


def faults(document: dict[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(document["kind"]).iter_errors(document)]


@cache
def validator(kind: str) -> Draft202012Validator:
    """The CRD of a kind, closed: a template has the spec of a Workflow, a schedule has one below ``workflowSpec``."""
    crd = json.loads((DATA / "workflow-crd.json").read_text())
    if kind == "CronWorkflow":
        spec = api_types()["CronWorkflowSpec"]
        cron = {"type": "object", "required": spec["required"], "properties": dict(spec["properties"])}
        cron["properties"] |= {
            "workflowSpec": crd["properties"]["spec"],
            "workflowMetadata": {"type": "object"},
            "stopStrategy": api_types()["StopStrategy"],
        }
        crd["properties"]["spec"] = cron
    close(crd)
    return Draft202012Validator(crd)


def close(schema: Any) -> None:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            close(part)
    elif isinstance(schema, list):
        for part in schema:
            close(part)


@cache
def api_types() -> dict[str, Any]:
    """The types of Argo's API by their short name, as in its schema; those of Kubernetes too."""
    definitions = json.loads((ROOT / "workflows" / "lint" / "workflow-schema.json").read_text())["definitions"]
    # Two short names stand for two types each; Argo's own come last and win.
    return {name.rpartition(".")[2]: definitions[name] for name in sorted(definitions, key=lambda n: TYPES in n)}


def of_some_versions(document: dict[str, Any]) -> list[str]:
    """The fields of a document that only some of Argo 3.6 to 4.1 know."""
    versions = yaml.safe_load((DATA / "versions.yaml").read_text())
    since = {
        (kind, field): f"{how} with {version}"
        for how, all_versions in versions.items()
        for version, types in all_versions.items()
        for kind, fields in types.items()
        for field in fields
    }
    kind = "CronWorkflowSpec" if document["kind"] == "CronWorkflow" else "WorkflowSpec"
    return [f"{'.'.join(place)} {since[place]}" for place in used(kind, document["spec"]) if place in since]


def used(kind: str, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each field of a value of Argo's API: the type it is of, and its name; also of fields that the type lacks."""
    known = api_types().get(kind, {}).get("properties", {})
    for field, content in value.items():
        yield kind, field
        schema = known.get(field, {})
        places = (schema, schema.get("items", {}), schema.get("additionalProperties", {}))
        inner = next((place["$ref"] for place in places if "$ref" in place), "").rpartition(".")[2]
        parts = content if isinstance(content, list) else list(content.values()) if "$ref" in places[2] else [content]
        for part in parts:
            if inner and isinstance(part, dict):
                yield from used(inner, part)
