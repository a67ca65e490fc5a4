"""What a rule says, and what becomes of it: a finding with file and line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workflows.errors import Problem

if TYPE_CHECKING:
    from workflows.lint.document import Document

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Violation:
    """One place that a rule objects to."""

    path: str
    message: str
    fix: str = ""


Check = Callable[["Document"], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """A check under the name that users see: that of its function, with dashes."""

    check: Check
    severity: Severity

    @property
    def id(self) -> str:
        """Name of the rule, for example ``missing-input``."""
        return rule_id(self.check)

    @property
    def doc(self) -> str:
        """What the rule finds, in one sentence: the docstring of its function."""
        return " ".join((self.check.__doc__ or "").split())


@dataclass(frozen=True)
class Finding:
    """A hit of a rule in a file."""

    rule: str
    severity: Severity
    problem: Problem

    def __str__(self) -> str:
        problem = self.problem
        where = f"{problem.file}:{problem.line}" if problem.line else problem.file
        note = "warning: " if self.severity == "warning" else ""
        head = ": ".join(part for part in (where, problem.path, f"[{self.rule}] {note}{problem.message}") if part)
        return f"{head}\n    fix: {problem.fix}" if problem.fix else head


def rule_id(check: Callable[..., object]) -> str:
    """The id of the rule that a function checks."""
    return str(getattr(check, "__name__", "")).replace("_", "-")
