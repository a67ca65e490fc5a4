"""One rank of a training in several processes; ``launcher.py`` starts it."""

from __future__ import annotations

from steps.tune import process_group
from steps.tune import step as tune
from steps.tune.process_group import DistributedContext


def work(settings: tune.Settings, group: DistributedContext) -> tune.Result | None:
    """Train with the other ranks; rank 0 writes the adapter."""
    if group.is_rank_zero:
        return tune.train_and_finish(settings, group)
    tune.train(settings, group)
    return None


if __name__ == "__main__":
    process_group.main(tune.Settings, work, "tune")
