"""docs/LINT_RULES.md is generated from the rules and their examples.

ARGOTUNE_REGENERATE=1 pytest tests/workflows/lint/test_lint_page.py
"""

import os
from pathlib import Path
from textwrap import dedent

import yaml

from workflows.lint import lint
from workflows.lint.rules.registry import RULES, describe_rules

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "lint"
GOOD = yaml.safe_load((DATA / "good_examples.yaml").read_text())
OPTIONAL = {rule.id for rule in RULES if rule.is_optional}
MAX_LINES = 12
HEAD = """# Lint rules

Generated from `workflows/lint/rules/` and `tests/data/lint/`. Errors make `argotune lint` exit with 2.
Optional rules are checked with `--enable RULE`. [LINT.md](LINT.md) explains the command.

"""


def test_page_is_generated_from_the_rules():
    rules = [(name, "optional" if name in OPTIONAL else severity, text) for name, severity, text in describe_rules()]
    page = HEAD + "| rule | severity | finds |\n|---|---|---|\n"
    page += "".join(f"| [{name}](#{name}) | {severity} | {cell(text)} |\n" for name, severity, text in rules)
    page += "".join(section(*rule) for rule in rules)
    file = ROOT / "docs" / "LINT_RULES.md"
    if os.environ.get("ARGOTUNE_REGENERATE"):
        file.write_text(page)
    assert file.read_text() == page


def test_every_rule_has_a_good_example():
    assert set(GOOD) == {name for name, _, _ in describe_rules()}


def section(name: str, severity: str, text: str) -> str:
    """Return the description, the bad and the good example of a rule."""
    path = DATA / "bad" / f"{name}.yaml"
    report = lint([(path.name, path.read_text())], enable=OPTIONAL)
    finding = next(finding for finding in report.findings if finding.rule == name)
    bad = excerpt(path.read_text().splitlines(), finding.problem.line)
    message = finding.problem.message + (f" (fix: {finding.problem.fix})" if finding.problem.fix else "")
    parts = [f"\n## {name}\n", f"{severity.capitalize()}. {text}\n"]
    parts += ["Bad:\n", f"```yaml\n{bad}\n```\n"] if bad else []
    parts += [f"Finding: {message}\n", f"Good:\n\n```yaml\n{GOOD[name]}\n```\n"]
    return "\n".join(parts)


def excerpt(lines: list[str], line: int) -> str:
    """Return a line and the lines indented below it; empty without a line."""
    if not line:
        return ""
    first = lines[line - 1]
    start = len(first) - len(first.lstrip())
    block = [first]
    for following in lines[line:]:
        if len(following) - len(following.lstrip()) <= start or len(block) == MAX_LINES:
            break
        block.append(following)
    return dedent("\n".join(text[:200] for text in block))


def cell(text: str) -> str:
    return text.replace("|", r"\|")
