"""Train with the tune step; only the call of the trainer is timed, as in the scripts.

Options: ``method``, ``batch_size`` and ``training_arguments`` of the step, and ``profile``: report the seconds of each
operation too.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from job import read_job, report

sys.path.insert(0, str(Path(__file__).parents[3]))


def main() -> None:
    import torch
    from trl import SFTTrainer

    from steps.tune.settings import Settings
    from steps.tune.step import tune

    job = read_job()
    seconds = 0.0
    activities = [torch.profiler.ProfilerActivity.CPU]
    profiler = torch.profiler.profile(activities=activities) if job.options.get("profile") else None
    train: Any = SFTTrainer.train

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal seconds
        started = time.monotonic()
        with profiler or contextlib.nullcontext():
            result = train(*args, **kwargs)
        seconds = time.monotonic() - started
        return result

    SFTTrainer.train = timed
    settings = Settings(
        work=Path(job.work),
        preset=job.preset,
        method=job.options.get("method", "qlora"),
        epochs=1,
        batch_size=job.options.get("batch_size", job.batch_size),
        rank=job.rank,
        alpha=16,
        max_length=job.length,
        seed=job.seed,
        training_arguments={"save_steps": 0.5} | job.options.get("training_arguments", {}),
    )
    tune(settings)
    curve = [json.loads(line) for line in (Path(job.work) / "report" / "train.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in curve]
    operations = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()} if profiler else {}
    packages = ("transformers", "trl", "peft", "bitsandbytes")
    report(sum(entry["tokens"] for entry in curve), seconds, losses, packages, operations)


if __name__ == "__main__":
    main()
