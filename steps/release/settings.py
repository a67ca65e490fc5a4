"""Settings and result of the release step."""

from __future__ import annotations

from dataclasses import dataclass

from steps.provision.settings import ReleaseSettings as Settings

__all__ = ["Result", "Settings"]


@dataclass(frozen=True)
class Result:
    """Released nodes."""

    summary: str
    """One sentence: the released nodes, or why there are none."""
