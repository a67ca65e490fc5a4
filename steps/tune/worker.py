"""One of the processes in which the tune step trains, where it trains in several: ``processes.py`` starts them."""

from __future__ import annotations

from steps.tune import process_group
from steps.tune import step as tune
from steps.tune.process_group import DistributedContext


def work(given: tune.Settings, group: DistributedContext) -> tune.Result | None:
    """Train with the others; the first process writes the adapter."""
    base, checkpoint = tune.train(given, group)
    return tune.finish(given, base, checkpoint) if group.is_rank_zero else None


if __name__ == "__main__":
    process_group.main(tune.Settings, work, "tune")
