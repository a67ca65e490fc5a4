"""Of several candidates, the one with the best evaluation becomes the adapter that the later steps take.

    python -m steps.promote --work work --candidates '[{"adapter-digest": "sha256:...", "adapter-loss": "1.07", ...}]'

Each candidate was tuned and evaluated in a folder of its own, ``WORK/candidates/NAME``, on the rows of all.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from steps.models.adapter import adapter_digest
from steps.promote.settings import Candidate, Result, Settings
from steps.runtime import files
from steps.runtime.errors import BadInput, GateFailed
from steps.tune import checkpoints

FOLDER = "candidates"
REPORTS = ("report/train.jsonl", "report/evaluation.json", "results/tune.json", "results/evaluate.json")
"""What the report of the run reads, of the winner."""


def promote(given: Settings) -> Result:
    """Copy the adapter with the lowest loss among those that passed, and its reports, to the work folder itself.

    Raises:
        BadInput: there are no candidates, or a winner that is in none of the folders.
        GateFailed: none has passed.
    """
    if not given.candidates:
        raise BadInput("there are no candidates", "tune and evaluate at least one before")
    names = _names(given.work / FOLDER)
    _tell(given.candidates, names)
    passed = [candidate for candidate in given.candidates if candidate.verdict == "pass"]
    if not passed:
        raise GateFailed(
            f"no candidate has passed its evaluation, of {len(given.candidates)}",
            "tune with other settings or more data; nothing was promoted",
        )
    best = min(passed, key=lambda candidate: candidate.adapter_loss)
    if best.adapter_digest not in names:
        raise BadInput(
            f"no folder of {given.work / FOLDER} holds the adapter {best.adapter_digest}",
            "run tune and evaluate with --work WORK/candidates/NAME on the same volume",
        )
    name = names[best.adapter_digest]
    _copy(given.work / FOLDER / name, given.work)
    print(f"promoted: {name}", flush=True)
    return Result(name, best.adapter_digest, best.base_loss, best.adapter_loss, len(given.candidates))


def outputs_intact(given: Settings, result: Result) -> bool:
    """Whether the winner of an earlier run still is the adapter of the work folder."""
    return adapter_digest(given.work / "adapter") == result.adapter_digest


def _names(folder: Path) -> dict[str, str]:
    """Folders of the candidates by the digest of the adapter that each holds."""
    found = {}
    for candidate in sorted(folder.iterdir(), reverse=True) if folder.is_dir() else []:
        try:
            found[adapter_digest(candidate / "adapter")] = candidate.name
        except OSError:
            continue  # one whose training has failed
    return found


def _tell(candidates: list[Candidate], names: dict[str, str]) -> None:
    for one in sorted(candidates, key=lambda candidate: candidate.adapter_loss):
        name = names.get(one.adapter_digest, one.adapter_digest)
        print(f"{name}: loss {one.base_loss:.4f} -> {one.adapter_loss:.4f}, {one.verdict}", flush=True)


def _copy(winner: Path, work: Path) -> None:
    """The adapter comes last: when it is there, all is."""
    for name in REPORTS:
        if (winner / name).is_file():
            with (winner / name).open("rb") as source, files.replacing(work / name) as copy:
                shutil.copyfileobj(source, copy)
    with files.replacing_folder(work / "adapter") as folder:
        shutil.copytree(winner / "adapter", folder, dirs_exist_ok=True)
        checkpoints.sync(folder)
