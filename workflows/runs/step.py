"""A step of a run: one task of its DAG or of its exit handler, with its attempts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

EXIT_PREFIX = "onExit."
"""Prefix of the keys of the exit handler's steps."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a step: a pod on a cluster, a process locally."""

    phase: str
    node: str = ""
    """Id of Argo's node."""
    pod: str = ""
    started: datetime | None = None
    message: str = ""
    exit_code: int | None = None
    host: str = ""
    """Name of the cluster node."""

    @property
    def is_started(self) -> bool:
        """True if the pod is running or has run."""
        return self.phase not in ("", "Pending")

    @property
    def is_ended(self) -> bool:
        """True if the pod writes no more log lines."""
        return self.is_started and self.phase != "Running"


@dataclass(frozen=True)
class Step:
    """One task of a run."""

    key: str
    """``tune``; ``onExit.report``; ``outer.inner`` inside a nested DAG."""
    type: str = "Pod"
    """``Pod``, ``Suspend``, ``Skipped``, or locally ``DAG`` and ``TaskGroup``."""
    display_name: str = ""
    """Argo's name for people, such as ``fan(0:a)``; empty: the last part of the key."""
    node: str = ""
    """Id of Argo's node; empty where it does not exist yet."""
    phase: str = ""
    """Empty where the step has not been reached."""
    message: str = ""
    fix: str = ""
    """The fix that the step wrote with its error."""
    progress: tuple[int, int] | None = None
    started: datetime | None = None
    finished: datetime | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    """Parameters that a suspended step waits for, each with its allowed values (none: any text)."""
    attempts: list[Attempt] = field(default_factory=list)
    is_tolerated: bool = False
    """True if a template around it succeeded: by ``continueOn``, or since another trial of a search did."""

    @property
    def name(self) -> str:
        """The key without the prefix of the exit handler."""
        return self.key.removeprefix(EXIT_PREFIX)

    @property
    def label(self) -> str:
        """The key, with the display name of an item of a fan-out."""
        parent, _, name = self.key.rpartition(".")
        shown = self.display_name or name
        return shown if not parent or "(" in shown else f"{parent}.{shown}"

    @property
    def in_exit_handler(self) -> bool:
        """True if the step runs after the DAG, even after a failure."""
        return f"{self.key}.".startswith(EXIT_PREFIX)

    @property
    def is_ended(self) -> bool:
        """True if the phase is final."""
        return self.phase not in ("", "Pending", "Running")

    @property
    def is_failed(self) -> bool:
        """True if the step failed or could not be run."""
        return self.phase in ("Failed", "Error")

    @property
    def is_consequence(self) -> bool:
        """True if the step failed because the whole run was being stopped."""
        return "shutdown with strategy" in self.message or "exceeded its deadline" in self.message

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last attempt."""
        return self.attempts[-1].exit_code if self.attempts else None
