"""The JSON Schema for editors is current, and accepts what is valid.

ARGOTUNE_REGENERATE=1 pytest tests/workflows/spec/test_spec_schema.py   writes docs/workspace.schema.json.
"""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from workflows.commands import schema
from workflows.errors import InvalidInput
from workflows.spec import load

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docs" / "workspace.schema.json"
KAITO = ROOT / "tests" / "data" / "kaito"
FILES = sorted([*(ROOT / "examples").glob("*.yaml"), *KAITO.glob("*.yaml"), *KAITO.glob("v1alpha1/*.yaml")])


@pytest.fixture(scope="module")
def validator() -> Any:
    content = json.loads(schema.text())
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def test_the_file_is_current() -> None:
    if os.environ.get("ARGOTUNE_REGENERATE"):
        FILE.write_text(schema.text())
    assert FILE.read_text() == schema.text(), "ARGOTUNE_REGENERATE=1 writes it"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_documents_are_valid(validator: Any, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        assert [error.message for error in validator.iter_errors(document)] == []


def test_every_field_has_a_type_and_a_title(validator: Any) -> None:
    for name, model in validator.schema["$defs"].items():
        assert model.get("description"), name
        for field, content in model["properties"].items():
            assert content.keys() & {"type", "$ref", "anyOf", "allOf", "const", "enum"}, (name, field)


@pytest.mark.parametrize(
    ("pipeline", "words"),
    [
        ({"rollout": {"canary": 100}}, "100 is greater than the maximum of 90"),
        ({"storage": {"size": "banana"}}, "'banana' does not match"),
        ({"tune": {"timeout": "soon"}}, "'soon' does not match"),
        ({"evaluation": {"sample": 1}}, "'sample' was unexpected"),
    ],
)
def test_errors_of_the_reader_are_errors_of_the_schema(
    validator: Any, tmp_path: Path, pipeline: dict[str, Any], words: str
) -> None:
    [document, *rest] = yaml.safe_load_all((ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml").read_text())
    document["pipeline"] = pipeline
    [error] = validator.iter_errors(document)
    assert words in error.message
    file = tmp_path / "workspace.yaml"
    file.write_text(yaml.safe_dump_all([document, *rest]))
    with pytest.raises(InvalidInput):
        load(file)
