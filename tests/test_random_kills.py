"""Runs that are killed at random moments; ``benchmarks/runs/kills.py`` has 300 kills."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from random_kills import kill_and_resume, run_reference
from small_runs import make_home


@pytest.mark.slow
def test_killed_runs_end_like_an_undisturbed_one(tmp_path: Path) -> None:
    """``test_runner_kills.py`` is the short variant."""
    home = make_home(tmp_path / "home")
    reference = run_reference(tmp_path / "undisturbed", home)
    rng, kills = random.Random(7), 0
    for number in range(20):
        kills += len(list(kill_and_resume(tmp_path / str(number), home, reference, min(5, 10 - kills), rng)))
        if kills == 10:
            return
    raise AssertionError(f"{kills} kills in 20 runs")
