"""Promote the candidate with the best evaluation to the adapter that later steps use.

    python -m steps.promote --work work --candidates '[{"adapter-digest": "sha256:...", "adapter-loss": "1.07", ...}]'

Each candidate was tuned and evaluated in a separate directory, ``WORK/candidates/NAME``, on the same rows.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from steps.models.adapter import adapter_digest
from steps.promote.candidates import find_candidates, print_summary
from steps.promote.settings import Result, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput, GateFailed
from steps.runtime.gpu_time import CANDIDATES
from steps.tune import checkpoints

REPORTS = ("report/train.jsonl", "report/evaluation.json", "results/tune.json", "results/evaluate.json")
"""Files of the winner that the report of the run reads."""


def promote(settings: Settings) -> Result:
    """Copy the passing candidate with the lowest loss, adapter and reports, to the work directory.

    Raises:
        BadInput: there are no candidates, or the winner is in none of the directories.
        GateFailed: no candidate passed.
    """
    if not settings.candidates:
        raise BadInput("no candidates", "tune and evaluate at least one candidate first")
    names = find_candidates(settings.work / CANDIDATES)
    print_summary(settings.candidates, names)
    passed = [candidate for candidate in settings.candidates if candidate.verdict == "pass"]
    if not passed:
        raise GateFailed(
            f"none of the {len(settings.candidates)} candidates passed its evaluation",
            "tune with other settings or more data; nothing was promoted",
        )
    best = min(passed, key=lambda candidate: candidate.adapter_loss)
    if best.adapter_digest not in names:
        raise BadInput(
            f"adapter {best.adapter_digest} not found in {settings.work / CANDIDATES}",
            "run tune and evaluate with --work WORK/candidates/NAME on the same volume",
        )
    name = names[best.adapter_digest]
    _copy_winner(settings.work / CANDIDATES / name, settings.work)
    print(f"promoted: {name}", flush=True)
    return Result(name, best.adapter_digest, best.base_loss, best.adapter_loss, len(settings.candidates))


def outputs_intact(settings: Settings, result: Result) -> bool:
    """Return True if the winner of an earlier run is still the adapter of the work directory."""
    return adapter_digest(settings.work / "adapter") == result.adapter_digest


def _copy_winner(winner: Path, work: Path) -> None:
    """Copy the adapter last: its presence means that all files were copied."""
    for name in REPORTS:
        if (winner / name).is_file():
            with (winner / name).open("rb") as source, files.replacing(work / name) as copy:
                shutil.copyfileobj(source, copy)
    with files.replacing_folder(work / "adapter") as folder:
        shutil.copytree(winner / "adapter", folder, dirs_exist_ok=True)
        checkpoints.sync(folder)
