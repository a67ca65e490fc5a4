"""The offline linter: each rule finds its violation, and valid files have no findings.

Files in ``tests/data/lint/bad`` start with the expected findings: ``# expect: RULE LINE``. `test_lint_page.py`
generates docs/LINT_RULES.md from them.
"""

from pathlib import Path

import pytest

from workflows.lint import lint
from workflows.lint.rules.registry import READING, RULES

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "lint"
BAD = sorted((DATA / "bad").glob("*.yaml"))
GOOD = sorted((DATA / "good").iterdir())
OPTIONAL = {rule.id for rule in RULES if rule.is_optional}
GOLDENS = sorted((ROOT / "argo").glob("*.yaml"))


def find(*files: Path, **options) -> list[tuple[str, int]]:
    report = lint([(path.name, path.read_text()) for path in files], **options)
    return sorted((finding.rule, finding.problem.line) for finding in report.findings)


def expected(path: Path) -> list[tuple[str, int]]:
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith("# expect: ")]
    return sorted((words[2], int(words[3])) for words in lines)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_has_exactly_the_expected_findings(path):
    enable = [path.stem] if path.stem in OPTIONAL else []
    assert find(path, enable=enable) == expected(path)


def test_every_rule_has_a_bad_file():
    assert {rule for path in BAD for rule, _ in expected(path)} == {*READING, *(rule.id for rule in RULES)}


@pytest.mark.parametrize("path", [*GOOD, *GOLDENS], ids=lambda path: path.name)
def test_good_file_has_no_findings(path):
    assert find(path) == []


def test_template_in_another_file_is_resolved():
    report = lint([(path.name, path.read_text()) for path in GOOD], strict_refs=True)
    assert report.errors == []
