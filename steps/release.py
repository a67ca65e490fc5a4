"""Gives back what provision took, however the run ended.

Provision takes nothing that has to be given back: one machine stays, and a cluster's autoscaler removes nodes that
have become idle by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steps import step


@step.settings
class Settings:
    """Give back what the run took."""

    work: Path
    """Work folder."""


@dataclass(frozen=True)
class Result:
    """What was given back."""

    summary: str


def release(settings: Settings) -> Result:
    """Say what happens to the machines of this run."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return Result("idle nodes are left to the cluster's autoscaler, which removes them")
    return Result("nothing to give back: the run used this machine only")


if __name__ == "__main__":
    step.main(Settings, release)
