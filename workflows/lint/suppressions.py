"""Comments that suppress findings: ``# argotune: ignore[image-tag, deadline]``.

A comment after a field applies to its line, a comment alone on a line to the next line. ``ignore-file[RULE]``
applies to the whole file; ``ignore`` without rules to every rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from workflows.errors import Problem
from workflows.lint.finding import Finding
from workflows.spec.findings import unknown

_COMMENT = re.compile(r"(?:^|\s)#\s*argotune:\s*(ignore-file|ignore)\b\s*(?:\[([^\]]*)\])?(.*)$")
_EVERY_RULE = frozenset({"*"})
_ALWAYS_REPORTED = frozenset({"syntax", "suppression"})


@dataclass
class Suppressions:
    """The suppressed rules of one file."""

    in_file: set[str] = field(default_factory=set)
    by_line: dict[int, set[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    """Comments with unknown rules."""

    def has(self, finding: Finding) -> bool:
        """Return True if a comment suppresses the finding."""
        rules = self.in_file | self.by_line.get(finding.problem.line, set())
        return finding.rule not in _ALWAYS_REPORTED and ("*" in rules or finding.rule in rules)


def parse(file: str, text: str, known: set[str]) -> Suppressions:
    """Return the suppressions of a file, and a problem for each unknown rule."""
    found = Suppressions()
    if "argotune:" not in text:
        return found
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        match = _COMMENT.search(line)
        if not match:
            continue
        rules = {name.strip() for name in match[2].split(",")} if match[2] else set(_EVERY_RULE)
        for name in sorted(rules - known - _EVERY_RULE):
            message = f"unknown rule `{name}` in the comment"
            found.problems.append(Problem(message, file=file, line=number, fix=unknown(name, sorted(known))))
        if match[1] == "ignore-file":
            found.in_file |= rules
        else:
            alone = line.lstrip().startswith("#")
            found.by_line.setdefault(_next_line(lines, number) if alone else number, set()).update(rules)
    return found


def _next_line(lines: list[str], number: int) -> int:
    """Return the number of the next line that is not a comment."""
    for later, line in enumerate(lines[number:], number + 1):
        if line.strip() and not line.lstrip().startswith("#"):
            return later
    return number
