"""The candidates of a search, each in a separate directory, ``WORK/candidates/NAME``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.models.adapter import adapter_digest
from steps.promote.settings import Candidate


def find_candidates(folder: Path) -> dict[str, str]:
    """Return the directory name of each candidate by the digest of its adapter."""
    names = {}
    for candidate in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []:
        try:
            names[adapter_digest(candidate / "adapter")] = candidate.name
        except OSError:
            continue  # its training failed
    return names


def print_summary(candidates: Sequence[Candidate], names: Mapping[str, str]) -> None:
    """Print the losses and the verdict of each candidate, the best first."""
    for candidate in sorted(candidates, key=lambda entry: entry.adapter_loss):
        name = names.get(candidate.adapter_digest, candidate.adapter_digest)
        print(
            f"{name}: loss {candidate.base_loss:.4f} -> {candidate.adapter_loss:.4f}, {candidate.verdict}", flush=True
        )
