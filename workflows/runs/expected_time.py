"""Progress of a run: the share of its expected time that is done, in percent.

Argo counts the pods that exist, all alike; a run would be at 50% while its training has not begun.
"""

from __future__ import annotations

from collections.abc import Iterable

from workflows.runs.step import Step

SECONDS = {
    "claims": 10, "preflight": 20, "dryrun": 60, "provision": 300, "pull": 120, "fetch": 120, "download": 120,
    "check": 20, "tune": 3600, "evaluate": 600, "prune": 20, "promote": 20, "package": 60, "rollout": 300,
    "release": 60, "report": 20,
}  # fmt: skip
"""Expected seconds of the steps; those of tune are replaced by the estimate of the run, if there is one."""
OTHER_SECONDS = 60


def percent(steps: Iterable[Step], tune_seconds: float = 0) -> int:
    """Return the percentage of the expected time that is done; 100 only if all steps have ended.

    Args:
        steps: all steps of the run, also those that have not started.
        tune_seconds: expected seconds of the training; 0: unknown.
    """
    done = total = 0.0
    limit = 100
    for step in steps:
        if step.type == "Suspend":
            continue  # a person's time
        seconds = float(SECONDS.get(step.name, OTHER_SECONDS))
        if step.name == "tune" and tune_seconds > 0:
            seconds = tune_seconds
        total += seconds
        done += seconds * _share(step)
        limit = limit if step.is_ended else 99
    return min(limit, int(100 * done / total)) if total else 0


def _share(step: Step) -> float:
    if step.is_ended:
        return 1.0
    if step.phase != "Running" or not step.progress:
        return 0.0
    finished, of = step.progress
    return min(1.0, finished / of) if of > 0 else 0.0
