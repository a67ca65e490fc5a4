"""A finding of the linter: a violation with file and line."""

from __future__ import annotations

from dataclasses import dataclass

from workflows.errors import Problem
from workflows.lint.rules.rule import Severity


@dataclass(frozen=True)
class Finding:
    """A violation of a rule in a file."""

    rule: str
    severity: Severity
    problem: Problem

    def __str__(self) -> str:
        problem = self.problem
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        note = "warning: " if self.severity == "warning" else ""
        head = ": ".join(part for part in (where, problem.path, f"[{self.rule}] {note}{problem.message}") if part)
        return f"{head}\n    fix: {problem.fix}" if problem.fix else head
