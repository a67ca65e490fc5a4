"""Each form of YAML in ``tests/data/cases/yaml_forms`` is read as Go reads it, or rejected with line and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workflows.errors import InvalidInput
from workflows.spec import Manifest, load
from workflows.spec.source import documents

CASES = Path(__file__).parents[2] / "data" / "cases" / "yaml_forms"
READ = ("anchors", "cm-immutable", "crlf", "directive", "ends", "list", "octal", "smart", "workspace")
UNKNOWN_KEY = ("training_config.TrainingArguments.learning_rat", "unknown key")
REJECTED = {
    "cm-binary": [(22, "tuning.config", "not found"), (30, "metadata", "missing field metadata.name")],
    "cm-crlf": [(41, *UNKNOWN_KEY)],
    "cm-fold": [(35, *UNKNOWN_KEY)],
    "cm-lit": [(41, *UNKNOWN_KEY)],
    "cm-lit2": [(41, *UNKNOWN_KEY)],
    "cm-litstrip": [(41, *UNKNOWN_KEY)],
    "cm-quoted": [(35, *UNKNOWN_KEY)],
    "cm-tabs": [(38, "training_config", "the indentation has a tab")],
    "cr": [(1, "", "CR without LF")],
    "nbsp": [(11, "", "the indentation has a space character U+00A0")],
    "sexa": [(39, "training_config", "mapping values are not allowed")],
    "smartkey": [(13, "tuning.method", "typographic quotes"), (13, "tuning.method", "invalid value")],
    "tab": [(12, "", "the indentation has a tab")],
    "utf16": [(1, "", "but UTF-16")],
    "yaml11": [(28, "pipeline.rollout.question", "must be a string, not true"), (38, "", "not YAML")],
}
"""Line, field and words of each problem."""


def read(name: str) -> Manifest:
    [manifest] = load(CASES / f"{name}.yaml")
    return manifest


def test_every_case_has_an_expectation() -> None:
    assert sorted([*READ, *REJECTED]) == sorted(file.stem for file in CASES.glob("*.yaml"))


@pytest.mark.parametrize("name", READ)
def test_a_valid_form_has_the_values_of_the_plain_one(name: str) -> None:
    manifest, plain = read(name), read("workspace")
    questions = {"smart": "“What now?”"}
    assert manifest.workspace.pipeline.rollout.question == questions.get(name, "What now?")
    steps = {"octal": 8}
    assert manifest.training.arguments["max_steps"] == steps.get(name, 2)
    rates = {"cm-immutable": 1e-3}
    assert manifest.training.arguments["learning_rate"] == rates.get(name, 2e-4)
    assert manifest.training.lora == plain.training.lora
    assert manifest.workspace.tuning == plain.workspace.tuning
    assert manifest.workspace.inference == plain.workspace.inference
    assert manifest.source.line("tuning.method") in (13, 14, 15, 16)


@pytest.mark.parametrize("name", REJECTED)
def test_another_form_is_rejected_with_line_and_fix(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(name)
    problems = caught.value.problems
    assert [(problem.line, problem.path) for problem in problems] == [case[:2] for case in REJECTED[name]]
    for problem, (_, _, words) in zip(problems, REJECTED[name], strict=True):
        assert words in problem.message and problem.fix


def test_typographic_quotes_around_a_text_are_a_warning() -> None:
    [warning] = read("smart").warnings
    assert (warning.line, warning.path) == (28, "pipeline.rollout.question")
    assert "straight quotes" in warning.fix


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0o10", 8),
        ("0O17", 15),
        ("-0o10", -8),
        ("010", 8),
        ("08", 8.0),
        ("1_000", 1000),
        ("1e3", 1000.0),
        ("0X1F", 31),
        ("0b101", 5),
        ("+7", 7),
        ("1:30", "1:30"),
        ("on", True),
        ("no", False),
        ("y", True),
        ("~", None),
        ("2026-01-31", "2026-01-31"),
        ("0o", "0o"),
        ("0o8", "0o8"),
    ],
)
def test_scalars_are_those_of_go(text: str, value: Any) -> None:
    [document], problems = documents(f"a: {text}\n", "f.yaml")
    assert problems == []
    assert document.value["a"] == value and type(document.value["a"]) is type(value)


def test_bytes_that_are_not_utf8_have_a_line(tmp_path: Path) -> None:
    file = tmp_path / "latin1.yaml"
    file.write_bytes("kind: Workspace\nmetadata:\n  name: Größe\n".encode("latin-1"))
    with pytest.raises(InvalidInput) as caught:
        load(file)
    assert caught.value.problems[0].line == 3


def test_a_key_in_binary_data_is_to_be_moved(tmp_path: Path) -> None:
    file = tmp_path / "workspace.yaml"
    text = (CASES / "cm-binary.yaml").read_text().replace("metabinaryData:", "metadata:")
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"move training_config\.yaml from binaryData to data"):
        load(file)


@pytest.mark.parametrize(
    "text", ["a: 1\na: .nan\n", "a: 1\na: !!int x\n", "a: 1\na: !!set {b}\n", "a: 1\na: {? [b] : c}\n"]
)
def test_values_of_duplicate_keys_are_checked(text: str) -> None:
    found, problems = documents(text, "f.yaml")
    assert found == []
    assert "is a duplicate" in problems[0].message
    assert len(problems) == 2
