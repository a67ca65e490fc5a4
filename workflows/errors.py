"""Errors of the command line and the compiler.

ArgotuneError        exit 1   base class, or a run that failed
+-- InvalidInput     exit 2   a Workspace, flag or document is invalid; carries all problems
+-- GateFailed       exit 3   the evaluation gate failed
+-- Cancelled        exit 5   the user stopped the run
+-- ApiFailure       exit 1   a cluster request failed (2 for bad input); in workflows/cluster/failures.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steps.runtime.errors import StepError


@dataclass(frozen=True)
class Problem:
    """One error in the user's input: ``FILE:LINE: field.path: MESSAGE``, then ``fix: IMPERATIVE``."""

    message: str
    """One sentence that states the error."""
    path: str = ""
    """Field path as the user writes it, for example ``tuning.input.urls[0]``."""
    file: str = ""
    """File name as given on the command line."""
    line: int = 0
    """1-based line in the file; 0 when unknown."""
    fix: str = ""
    """Fix, as an imperative."""

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}" if self.line else self.file
        head = ": ".join(part for part in (location, self.path, self.message) if part)
        return f"{head}\n    fix: {self.fix}" if self.fix else head


def use_one_of(names: Iterable[str], otherwise: str) -> str:
    """Return the fix for an unknown name: the known ones, or ``otherwise`` if there are none."""
    known = ", ".join(names)
    return f"use one of {known}" if known else otherwise


class ArgotuneError(Exception):
    """Base class of errors that are shown to the user without a traceback."""

    exit_code = 1


def from_step_error(error: StepError) -> ArgotuneError:
    """Return the error of a step that a command called, with the message and exit code of the step."""
    result = ArgotuneError(str(error))
    result.exit_code = error.exit_code
    return result


class InvalidInput(ArgotuneError):
    """The input is invalid; ``problems`` contains all errors in file order."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def gate_failure_message(outputs: Mapping[str, str]) -> str:
    """Return the verdict of a run whose evaluation has these outputs."""
    reason = outputs.get("reason") or "the adapter is not better by the required margin"
    return f"the gate failed: {reason}; nothing was rolled out"


class GateFailed(ArgotuneError):
    """The evaluation gate failed; nothing was rolled out."""

    exit_code = 3


class Cancelled(ArgotuneError):
    """The user stopped the run; it can be resumed."""

    exit_code = 5


def collect_problems(problems: list[Problem], function: Any, *arguments: Any) -> Any:
    """Call ``function`` and return its result; add the problems that it raises to ``problems``."""
    try:
        return function(*arguments)
    except InvalidInput as error:
        problems += error.problems
        return None
