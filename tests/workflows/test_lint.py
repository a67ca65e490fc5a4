"""The offline linter: each rule finds its fault, and nothing is found where there is none.

Files in ``tests/data/lint/bad`` begin with what must be found in them: ``# expect: RULE LINE``. ``docs/LINT.md`` is
made from the rules: ARGOTUNE_REGENERATE=1 pytest tests/workflows/test_lint.py
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workflows.lint import lint
from workflows.lint.registry import READING, RULES

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "lint"
BAD = sorted((DATA / "bad").glob("*.yaml"))
GOOD = sorted((DATA / "good").iterdir())
GOLDENS = sorted((ROOT / "argo").glob("*.yaml"))


def found(*files: Path, **options) -> list[tuple[str, int]]:
    report = lint([(path.name, path.read_text()) for path in files], **options)
    return sorted((finding.rule, finding.problem.line) for finding in report.findings)


def expected(path: Path) -> list[tuple[str, int]]:
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("# expect: ")]
    return sorted((words[2], int(words[3])) for words in lines)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_bad_file_has_just_its_faults(path):
    assert found(path) == expected(path)


def test_every_rule_has_a_bad_file():
    assert {rule for path in BAD for rule, _ in expected(path)} == {*READING, *(rule.id for rule in RULES)}


@pytest.mark.parametrize("path", [*GOOD, *GOLDENS], ids=lambda path: path.name)
def test_nothing_is_found_where_there_is_none(path):
    assert found(path) == []


def test_a_template_of_another_file_is_found_when_given_together():
    report = lint([(path.name, path.read_text()) for path in GOOD], strict_refs=True)
    assert report.errors == []


def test_page_is_made_from_the_rules():
    page = "# What `argotune lint` finds\n\nErrors make it exit with 2; warnings do not.\n"
    page += "\n| rule | severity | finds |\n|---|---|---|\n"
    rows = [(name, "error", text) for name, text in READING.items()]
    rows += [(rule.id, rule.severity, rule.doc) for rule in RULES]
    page += "".join(f"| {name} | {severity} | {text.replace('|', chr(92) + '|')} |\n" for name, severity, text in rows)
    file = ROOT / "docs" / "LINT.md"
    if os.environ.get("ARGOTUNE_REGENERATE"):
        file.write_text(page)
    assert file.read_text() == page


def argotune_lint(*arguments, text=None):
    command = [sys.executable, "-m", "workflows.cli", "lint", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_errors_exit_with_2_and_warnings_do_not():
    bad = argotune_lint(DATA / "bad" / "entrypoint.yaml")
    assert bad.returncode == 2
    assert "[entrypoint]" in bad.stdout
    assert "fix: " in bad.stdout
    warned = argotune_lint(DATA / "bad" / "image-tag.yaml")
    assert (warned.returncode, "[image-tag]" in warned.stdout) == (0, True)


def test_standard_input_and_json():
    ended = argotune_lint("-", "-o", "json", text=(DATA / "bad" / "entrypoint.yaml").read_text())
    assert ended.returncode == 2
    assert "entrypoint" in json.dumps(json.loads(ended.stdout))


def test_a_file_that_is_not_there_is_bad_input():
    assert argotune_lint("nowhere.yaml").returncode == 2


VALID = list(yaml.safe_load_all((DATA / "good" / "tuning.yaml").read_text()))


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([path for path in places(VALID) if path]),
    st.one_of(st.none(), st.integers(), st.text(max_size=8), st.just([]), st.just({}), st.just("{{tasks.x.y}}")),
)
def test_a_changed_document_is_linted_and_never_crashes(path, value):
    documents = copy.deepcopy(VALID)
    parent = documents
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    lint([("changed.yaml", yaml.safe_dump_all(documents))])
