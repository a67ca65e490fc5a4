"""``argotune lint`` as a user meets it: files, standard input, output, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflows.commands import lint as command
from workflows.errors import InvalidInput
from workflows.lint import lint

ROOT = Path(__file__).parents[3]
BAD = ROOT / "tests" / "data" / "lint" / "bad"
GOOD = ROOT / "tests" / "data" / "lint" / "good"


def test_an_error_is_told_with_place_rule_and_fix_and_ends_with_2(argotune):
    ended = argotune("lint", BAD / "on-exit.yaml", BAD / "enum.yaml")
    assert ended.returncode == 2
    assert ended.stdout.startswith(
        f"{BAD / 'on-exit.yaml'}:8: spec.onExit: [on-exit] unknown template `report`\n    fix: known: main\n"
    )
    assert ended.stdout.count("[enum]") == 2
    assert ended.stderr == "3 documents, 3 errors, 0 warnings\n"


def test_warnings_end_with_0(argotune):
    ended = argotune("lint", BAD / "image-tag.yaml")
    assert ended.returncode == 0
    assert "[image-tag] warning: " in ended.stdout


def test_what_compile_prints_is_linted_from_standard_input(argotune):
    example = ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml"
    compiled = argotune("compile", example)
    assert compiled.returncode == 0, compiled.stderr
    ended = argotune("lint", "-", text=compiled.stdout)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_json_tells_the_same(argotune):
    ended = argotune("lint", "-o", "json", "-", text=(BAD / "entrypoint.yaml").read_text())
    told = json.loads(ended.stdout)
    assert ended.returncode == 2
    assert told["documents"] == 2
    assert told["valid"] is False
    assert told["findings"][0] == {
        "rule": "entrypoint",
        "severity": "error",
        "message": "unknown template `mian`",
        "path": "spec.entrypoint",
        "file": "stdin",
        "line": 8,
        "fix": "did you mean main?",
    }


def test_a_workspace_is_to_be_compiled_first(argotune):
    ended = argotune("lint", ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")
    assert ended.returncode == 2
    assert "argotune compile" in ended.stdout


def test_files_that_cannot_be_read_are_all_named(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput) as refused:
        command._read(["nowhere.yaml", str(binary), str(tmp_path)])
    assert [problem.file for problem in refused.value.problems] == ["nowhere.yaml", str(binary), str(tmp_path)]


def test_a_reference_to_what_is_not_given_is_a_warning_or_with_strict_refs_an_error():
    text = (BAD / "outside-reference.yaml").read_text()
    assert [found.severity for found in lint([("a.yaml", text)]).findings] == ["warning"]
    assert [found.severity for found in lint([("a.yaml", text)], strict_refs=True).findings] == ["error"]


def test_templates_of_another_file_are_found_and_looked_into():
    calls = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a, namespace: ml}\nspec:\n"
        "  entrypoint: main\n  volumes: [{name: work, emptyDir: {}}]\n  templates:\n    - name: main\n      steps:\n"
        "        - - {name: greet, templateRef: {name: shared, template: greet}}\n"
    )
    library = (GOOD / "library.yaml").read_text()
    alone = lint([("calls.yaml", calls)])
    assert [found.rule for found in alone.findings] == ["outside-reference"]
    together = lint([("calls.yaml", calls), ("library.yaml", library)], strict_refs=True)
    assert [(found.rule, found.problem.file) for found in together.findings] == [("missing-input", "calls.yaml")]
    elsewhere = lint([("calls.yaml", calls.replace("namespace: ml", "namespace: other")), ("library.yaml", library)])
    assert [found.rule for found in elsewhere.findings] == ["outside-reference"]


def test_in_a_list_the_path_begins_with_the_item():
    text = (GOOD / "schedule.yaml").read_text().replace("Etc/UTC", "Etc/UCT2")
    [found] = lint([("list.yaml", text)]).findings
    assert found.problem.path == "items[0].spec.timezone"
    assert text.splitlines()[found.problem.line - 1].strip() == "timezone: Etc/UCT2"


@pytest.mark.parametrize("words", [["--help"], ["lint", "--help"]])
def test_help_loads_no_schema(words):
    argv = [sys.executable, "-X", "importtime", "-m", "workflows.cli", *words]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "lint" in ended.stdout
    modules = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines() if "|" in line}
    assert not modules & {"jsonschema", "lark", "pydantic", "hera"}
