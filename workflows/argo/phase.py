"""Phases of nodes and runs."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Phase of a node or of a run (Argo: NodePhase)."""

    PENDING = "Pending"
    """Not started, or waiting for the next attempt."""
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    SKIPPED = "Skipped"
    """``when`` was false."""
    OMITTED = "Omitted"
    """``depends`` can no longer be satisfied."""
    FAILED = "Failed"
    """The command exited with a code other than 0, or exceeded its time limit."""
    ERROR = "Error"
    """The node could not run, or did not write its outputs."""
    CANCELLED = "Cancelled"
    """The user stopped the run (runs only)."""

    @property
    def is_fulfilled(self) -> bool:
        """True in every phase that is final."""
        return self not in (Phase.PENDING, Phase.RUNNING)

    @property
    def is_completed(self) -> bool:
        """True if the node ran to an end: succeeded or failed."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.ERROR)

    @property
    def is_failure(self) -> bool:
        """True for Failed and Error."""
        return self in (Phase.FAILED, Phase.ERROR)
