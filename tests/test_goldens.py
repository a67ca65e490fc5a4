"""Every example compiles to the Argo objects in ``argo/`` with its name, one file per kind.

ARGOTUNE_REGENERATE=1 pytest tests/test_goldens.py   rewrites them; review the diff before you commit it.
"""

import contextlib
import io
import json
import os
import runpy
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from workflows.compile import emit
from workflows.compile.kinds import compile_as
from workflows.load_plans import load_plans

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
SCHEMA = ROOT / "workflows" / "lint" / "workflow-schema.json"

# Other kinds of some examples, in addition to the Workflow.
OTHER_KINDS = {
    "phi_3_mini_128k_qlora_parquet": ["template"],
    "smollm2_135m_on_cluster": ["template"],
    "smollm2_135m_retraining": ["template", "cluster-template", "cron"],
}
GOLDENS = [(example, kind) for example in EXAMPLES for kind in ["workflow", *OTHER_KINDS.get(example.stem, [])]]
# Composed in Python; each script prints its Workflow.
COMPOSED = [ROOT / "examples" / name for name in ("learning_rate_fan_out.py", "own_cleaning_step.py")]
GOLDENS += [(example, "workflow") for example in COMPOSED]


def golden(example: Path, kind: str) -> Path:
    return ROOT / "argo" / (f"{example.stem}.yaml" if kind == "workflow" else f"{example.stem}.{kind}.yaml")


def compiled(example: Path, kind: str) -> str:
    if example in COMPOSED:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(str(example.relative_to(ROOT)), run_name="__main__")
        return printed.getvalue()
    return emit.to_yaml(*(compile_as(plan, kind) for plan in load_plans(str(example.relative_to(ROOT)))))


@pytest.fixture(autouse=True)
def no_site_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ARGOTUNE_SITE", raising=False)


@pytest.mark.parametrize(("example", "kind"), GOLDENS, ids=lambda value: getattr(value, "stem", value))
def test_example_compiles_to_its_golden(example, kind, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = compiled(example, kind)
    if os.environ.get("ARGOTUNE_REGENERATE"):
        golden(example, kind).write_text(text)
    assert text == golden(example, kind).read_text()


@pytest.mark.parametrize(("example", "kind"), GOLDENS, ids=lambda value: getattr(value, "stem", value))
def test_golden_is_strictly_valid_argo(example, kind):
    documents = list(yaml.safe_load_all(golden(example, kind).read_text()))
    assert documents
    for document in documents:
        errors = [f"{error.json_path}: {error.message}" for error in strict(document["kind"]).iter_errors(document)]
        assert errors == []


def test_nothing_else_stands_beside_the_goldens():
    assert {path.name for path in (ROOT / "argo").glob("*.yaml")} == {golden(*case).name for case in GOLDENS}


def test_strict_schema_rejects_fields_that_argo_would_drop():
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
