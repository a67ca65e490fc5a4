"""A rule of the linter and its violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from workflows.argo.document import Document

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Violation:
    """A field that violates a rule."""

    path: str
    message: str
    fix: str = ""


Check = Callable[[Document], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """A check, its id and its severity."""

    check: Check
    severity: Severity
    is_optional: bool = False
    """True for a rule that only ``--enable`` turns on."""

    @cached_property
    def id(self) -> str:
        """Name of the check function, with dashes: ``missing-input``."""
        return self.check.__name__.replace("_", "-")

    @property
    def doc(self) -> str:
        """The docstring of the check function: what the rule finds."""
        return " ".join((self.check.__doc__ or "").split())
