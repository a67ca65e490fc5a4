"""What the command line and the compiler can fail with.

ArgotuneError        exit 1   anything below, or a run that failed
+-- InvalidInput     exit 2   the Workspace, a flag or a document is wrong: carries every problem found
+-- GateFailed      exit 3   the evaluation gate said no
+-- Cancelled        exit 5   the user stopped it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steps.runtime.errors import StepError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in the user's input, and how to mend it."""

    message: str
    """What is wrong, in one sentence."""
    path: str = ""
    """Field path as the user would write it, for example ``tuning.input.urls[0]``."""
    file: str = ""
    """File name as given on the command line."""
    line: int = 0
    """1-based line in the file; 0 when unknown."""
    fix: str = ""
    """What to write instead."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        head = ": ".join(part for part in (where, self.path, self.message) if part)
        return f"{head}\n    fix: {self.fix}" if self.fix else head


class ArgotuneError(Exception):
    """Base of all errors that are shown to the user without a traceback."""

    exit_code = 1


def of_step_error(error: StepError) -> ArgotuneError:
    """The error of a step that a command called itself, with the step's words and exit code."""
    told = ArgotuneError(str(error))
    told.exit_code = error.exit_code
    return told


class InvalidInput(ArgotuneError):
    """The input is wrong; ``problems`` holds all that was found, in the order of the file."""

    exit_code = 2

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def gate_failure_message(evaluated: Mapping[str, str]) -> str:
    """What an evaluation with these outputs, whose verdict is ``fail``, means for the run."""
    reason = evaluated.get("reason") or "the adapter is not enough better"
    return f"the gate failed: {reason}; nothing was rolled out"


class GateFailed(ArgotuneError):
    """The evaluation gate said no; nothing was rolled out."""

    exit_code = 3


class Cancelled(ArgotuneError):
    """The user stopped it; it can be resumed."""

    exit_code = 5
