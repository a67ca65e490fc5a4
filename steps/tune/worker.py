"""One rank of a training in several processes; ``launcher.py`` starts it."""

from __future__ import annotations

from steps.tune import process_group
from steps.tune import step as tune
from steps.tune.process_group import DistributedContext


def work(settings: tune.Settings, group: DistributedContext) -> tune.Result:
    """Train with the other ranks; rank 0 writes the adapter."""
    if group.node > 0:
        # Only node 0 has the work directory. The launcher deletes this one.
        assert group.folder
        settings = settings.model_copy(update={"work": group.folder / f"node-{group.node}"})
    if not group.is_rank_zero:
        tune.train(settings, group)
    return group.on_rank_zero("result", lambda: tune.train_and_finish(settings, group))


if __name__ == "__main__":
    process_group.main(tune.Settings, work, "tune")
