"""Train with the tune step; only the call of the trainer is timed, as in the scripts.

Options: ``method``, and ``training_arguments`` of the step.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from job import read_job, report

sys.path.insert(0, str(Path(__file__).parents[3]))


def main() -> None:
    from trl import SFTTrainer

    from steps.tune.settings import Settings
    from steps.tune.step import tune

    job = read_job()
    seconds = 0.0
    train: Any = SFTTrainer.train

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal seconds
        started = time.monotonic()
        result = train(*args, **kwargs)
        seconds = time.monotonic() - started
        return result

    SFTTrainer.train = timed
    settings = Settings(
        work=Path(job.work),
        preset=job.preset,
        method=job.options.get("method", "qlora"),
        epochs=1,
        batch_size=job.batch_size,
        rank=job.rank,
        alpha=16,
        max_length=job.length,
        seed=job.seed,
        training_arguments={"save_steps": 0.5} | job.options.get("training_arguments", {}),
    )
    tune(settings)
    curve = [json.loads(line) for line in (Path(job.work) / "report" / "train.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in curve]
    report(sum(entry["tokens"] for entry in curve), seconds, losses, ("transformers", "trl", "peft", "bitsandbytes"))


if __name__ == "__main__":
    main()
