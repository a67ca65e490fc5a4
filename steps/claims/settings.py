"""Settings and result of the claims step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steps.runtime.options import Options


class Settings(Options):
    """Check the volume claims that the next steps mount. Its own pod mounts none, so that it always starts."""

    work: Path
    """Work folder."""
    claims: list[str] = []
    """Required PersistentVolumeClaims."""


@dataclass(frozen=True)
class Result:
    """Result of the checks."""

    summary: str
    """One-sentence summary."""
