"""Select the trials with the lowest losses on the held-out rows, for the next rung of successive halving.

    python -m steps.prune --work work --keep 2 --trials '[{"candidate": "trial-1", "rank": "8"}, ...]' \\
        --candidates '[{"adapter-digest": "sha256:...", "adapter-loss": "1.07", ...}]'

The gate is not applied: a trial that has only begun to learn can pass it later.
"""

from __future__ import annotations

from steps.promote.candidates import find_candidates, print_summary
from steps.prune.settings import Result, Settings
from steps.runtime.errors import BadInput
from steps.runtime.gpu_time import CANDIDATES


def prune(settings: Settings) -> Result:
    """Return the best trials of a rung. Trials that failed are in none of its outputs, so they are dropped.

    Raises:
        BadInput: no trial was evaluated, or an adapter is in none of the directories.
    """
    if not settings.candidates:
        raise BadInput("no candidates", "tune and evaluate at least one trial first")
    folder = settings.work / CANDIDATES
    names = find_candidates(folder)
    print_summary(settings.candidates, names)
    trials = {trial.get("candidate", ""): trial for trial in settings.trials}
    best = sorted(settings.candidates, key=lambda candidate: candidate.adapter_loss)[: settings.keep]
    if missing := [entry.adapter_digest for entry in best if names.get(entry.adapter_digest) not in trials]:
        raise BadInput(
            f"adapters of no trial in {folder}: {', '.join(missing)}",
            "run tune and evaluate with --work WORK/candidates/NAME on the same volume, and list NAME in --trials",
        )
    survivors = [trials[names[entry.adapter_digest]] for entry in best]
    print(f"continue: {', '.join(trial['candidate'] for trial in survivors)}", flush=True)
    return Result(survivors, len(settings.candidates))
