"""``argotune lint``: files, standard input, output, exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflows.errors import InvalidInput
from workflows.lint import lint
from workflows.lint.files import read_files

ROOT = Path(__file__).parents[3]
BAD = ROOT / "tests" / "data" / "lint" / "bad"
GOOD = ROOT / "tests" / "data" / "lint" / "good"


def test_an_error_has_location_rule_and_fix_and_exits_with_2(argotune):
    ended = argotune("lint", BAD / "on-exit.yaml", BAD / "enum.yaml")
    assert ended.returncode == 2
    assert ended.stdout.startswith(
        f"{BAD / 'on-exit.yaml'}:8: spec.onExit: [on-exit] unknown template `report`\n    fix: known: main\n"
    )
    assert ended.stdout.count("[enum]") == 2
    assert ended.stderr == "3 documents, 3 errors, 0 warnings\n"


def test_warnings_exit_with_0(argotune):
    ended = argotune("lint", BAD / "image-tag.yaml")
    assert ended.returncode == 0
    assert "[image-tag] warning: " in ended.stdout


def test_compiled_output_is_linted_from_standard_input(argotune):
    example = ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml"
    compiled = argotune("compile", example)
    assert compiled.returncode == 0, compiled.stderr
    ended = argotune("lint", "-", text=compiled.stdout)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_json_output(argotune):
    ended = argotune("lint", "-o", "json", "-", text=(BAD / "entrypoint.yaml").read_text())
    report = json.loads(ended.stdout)
    assert ended.returncode == 2
    assert report["documents"] == 2
    assert report["valid"] is False
    assert report["findings"][0] == {
        "rule": "entrypoint",
        "severity": "error",
        "message": "unknown template `mian`",
        "path": "spec.entrypoint",
        "file": "stdin",
        "line": 8,
        "fix": "did you mean main?",
    }


def test_a_workspace_must_be_compiled_first(argotune):
    ended = argotune("lint", ROOT / "examples" / "smollm2_135m_qlora_parquet.yaml")
    assert ended.returncode == 2
    assert "argotune compile" in ended.stdout


def test_all_unreadable_files_are_named(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput) as error:
        read_files(["nowhere.yaml", str(binary)])
    assert [problem.file for problem in error.value.problems] == ["nowhere.yaml", str(binary)]


def test_an_outside_reference_is_a_warning_or_with_strict_refs_an_error():
    text = (BAD / "outside-reference.yaml").read_text()
    assert [finding.severity for finding in lint([("a.yaml", text)]).findings] == ["warning"]
    assert [finding.severity for finding in lint([("a.yaml", text)], strict_refs=True).findings] == ["error"]


def test_templates_of_another_file_are_checked():
    calls = (
        "apiVersion: argoproj.io/v1alpha1\nkind: Workflow\nmetadata: {name: a, namespace: ml}\nspec:\n"
        "  entrypoint: main\n  volumes: [{name: work, emptyDir: {}}]\n  templates:\n    - name: main\n      steps:\n"
        "        - - {name: greet, templateRef: {name: shared, template: greet}}\n"
    )
    library = (GOOD / "library.yaml").read_text()
    alone = lint([("calls.yaml", calls)])
    assert [finding.rule for finding in alone.findings] == ["outside-reference"]
    together = lint([("calls.yaml", calls), ("library.yaml", library)], strict_refs=True)
    assert [(finding.rule, finding.problem.file) for finding in together.findings] == [
        ("missing-input", "calls.yaml"), ("library-tag", "calls.yaml"),
    ]  # fmt: skip
    elsewhere = lint([("calls.yaml", calls.replace("namespace: ml", "namespace: other")), ("library.yaml", library)])
    assert [finding.rule for finding in elsewhere.findings] == ["outside-reference"]


def test_a_path_in_a_list_starts_with_the_item():
    text = (GOOD / "schedule.yaml").read_text().replace("Etc/UTC", "Etc/UCT2")
    [finding] = lint([("list.yaml", text)]).findings
    assert finding.problem.path == "items[0].spec.timezone"
    assert text.splitlines()[finding.problem.line - 1].strip() == "timezone: Etc/UCT2"


@pytest.mark.parametrize("args", [["--help"], ["lint", "--help"]])
def test_help_loads_no_schema(args):
    argv = [sys.executable, "-X", "importtime", "-m", "workflows.cli", *args]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    assert "lint" in ended.stdout
    modules = {line.split("|")[-1].strip().split(".")[0] for line in ended.stderr.splitlines() if "|" in line}
    assert not modules & {"jsonschema", "lark", "pydantic", "hera"}
