"""A run ends at its budget, with a checkpoint, and continues with a larger one.

The short variants are in ``test_tune_resume.py`` and ``test_runner_budget.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import SmallRun, make_home

ROWS = 40
TINY = "0.0001"
"""0.36 s, which loading the model and a few steps exceed on any machine."""


@pytest.mark.slow
def test_a_run_ends_at_its_budget_and_resumes_with_a_larger_one(tmp_path: Path) -> None:
    run = SmallRun(tmp_path, make_home(tmp_path / "home"), ROWS, epochs=3)
    begin = ("--name", "killed-1", *run.volumes, "--set", f"budget.hours={TINY}")
    assert run.start(*begin).wait(timeout=1500) == 6, run.log.read_text()
    log = run.log.read_text()
    assert f"the budget of {TINY} hours of GPU time (pipeline.budget) is used up: step " in log
    assert "fix: increase it and resume: argotune run FILE --resume -p budget-hours=HOURS" in log
    assert len(run.nodes()["tune"]["attempts"]) == 1, "a run without a budget left is not retried"
    checkpoints = [json.loads(file.read_text()) for file in (run.work / "checkpoints").glob("*/complete.json")]
    assert checkpoints and not any(checkpoint["finished"] for checkpoint in checkpoints)
    report = json.loads((run.work / "report" / "report.json").read_text())
    assert report["gpu"]["budget_hours"] == float(TINY)

    assert run.start("--resume", "--set", f"budget.hours={TINY}").wait(timeout=1500) == 6
    assert "is used up: tune did not start" in run.log.read_text()

    run.finish(run.start("--resume", "--set", "budget.hours=1"))
    assert run.nodes()["tune"]["phase"] == "Succeeded"
    training = "".join(file.read_text() for file in (run.folder / "nodes" / "tune").glob("*.log"))
    assert "resuming from step " in training
    report = json.loads((run.work / "report" / "report.json").read_text())
    outputs = run.nodes()["tune"]["outputs"]
    gpu = report["gpu"]
    assert (gpu["gpus"], gpu["usd"], gpu["budget_hours"]) == (0, 0, 1)
    assert gpu["loading"] > 0 and gpu["training"] > 0
    assert gpu["minutes"] == pytest.approx(gpu["training"] + gpu["loading"], abs=0.011)  # each is rounded
    assert float(outputs["train-seconds"]) > 0 and float(outputs["load-seconds"]) > 0
