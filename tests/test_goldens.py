"""Every example compiles to the Workflow that stands in ``argo/`` under its name.

ARGOTUNE_REGENERATE=1 pytest tests/test_goldens.py   writes them anew; read the difference before committing it.
"""

import json
import os
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from workflows.compile import emit
from workflows.compile.dag import compile_workflow
from workflows.resolve import plans

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SCHEMA = ROOT / "tests" / "data" / "argo" / "workflow-schema.json"


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_compiles_to_its_golden(example, monkeypatch):
    monkeypatch.chdir(ROOT)
    golden = ROOT / "argo" / example.name
    compiled = [compile_workflow(plan) for plan in plans(str(example.relative_to(ROOT)))]
    if os.environ.get("ARGOTUNE_REGENERATE"):
        golden.write_text(emit.to_yaml(*compiled))
    assert emit.to_yaml(*compiled) == golden.read_text()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_golden_is_strictly_valid_argo(example):
    documents = list(yaml.safe_load_all((ROOT / "argo" / example.name).read_text()))
    assert documents
    for document in documents:
        errors = [f"{error.json_path}: {error.message}" for error in strict(document["kind"]).iter_errors(document)]
        assert errors == []


def test_the_strict_schema_refuses_what_argo_would_drop():
    document = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {},
        "spec": {"entrypoin": "main"},
    }
    assert [error.message for error in strict("Workflow").iter_errors(document)]


def strict(kind: str) -> Draft202012Validator:
    """Argo's own schema with unknown fields refused, as ``argo lint --strict`` does."""
    schema = json.loads(SCHEMA.read_text())
    schema.pop("oneOf")
    schema["$ref"] = f"#/definitions/io.argoproj.workflow.v1alpha1.{kind}"
    for definition in schema["definitions"].values():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
    return Draft202012Validator(schema)
