"""Compiled documents are accepted by Argo 4.1, and use only fields that Argo 3.6 has.

The goldens are validated by the CRD (``tests/data/argo``), without unknown fields, which the API server would drop.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from closed_schema import close
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
    assert [field for document in documents(path) for field in version_specific_fields(document)] == []


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
    assert sorted(version_specific_fields(document)) == [
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
    """Return the strict CRD of a kind: a CronWorkflow has the spec of a Workflow below ``workflowSpec``."""
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


@cache
def api_types() -> dict[str, Any]:
    """Return the types of Argo's API and of Kubernetes by their short name in the schema."""
    definitions = json.loads((ROOT / "workflows" / "lint" / "workflow-schema.json").read_text())["definitions"]
    # Two short names are ambiguous; Argo's types come last and win.
    return {name.rpartition(".")[2]: definitions[name] for name in sorted(definitions, key=lambda n: TYPES in n)}


def version_specific_fields(document: dict[str, Any]) -> list[str]:
    """Return the fields of a document that only some of Argo 3.6 to 4.1 have."""
    versions = yaml.safe_load((DATA / "versions.yaml").read_text())
    since = {
        (kind, field): f"{how} with {version}"
        for how, all_versions in versions.items()
        for version, types in all_versions.items()
        for kind, fields in types.items()
        for field in fields
    }
    kind = "CronWorkflowSpec" if document["kind"] == "CronWorkflow" else "WorkflowSpec"
    return [f"{'.'.join(field)} {since[field]}" for field in used_fields(kind, document["spec"]) if field in since]


def used_fields(kind: str, value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield type and name of each field of a value of Argo's API, unknown fields included."""
    known = api_types().get(kind, {}).get("properties", {})
    for field, content in value.items():
        yield kind, field
        schema = known.get(field, {})
        schemas = (schema, schema.get("items", {}), schema.get("additionalProperties", {}))
        inner = next((part["$ref"] for part in schemas if "$ref" in part), "").rpartition(".")[2]
        parts = content if isinstance(content, list) else list(content.values()) if "$ref" in schemas[2] else [content]
        for part in parts:
            if inner and isinstance(part, dict):
                yield from used_fields(inner, part)
