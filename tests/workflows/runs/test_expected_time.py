"""The progress of a run is weighted by the expected time of its steps."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from workflows.runs.expected_time import SECONDS, percent
from workflows.runs.step import Step

KEYS = ["preflight", "provision", "download", "tune", "evaluate", "package", "rollout", "onExit.release", "custom"]
PHASES = ["", "Pending", "Running", "Succeeded", "Failed", "Skipped", "Omitted"]


def steps(**phases: str) -> list[Step]:
    return [Step(key=key, phase=phases.get(key, "")) for key in KEYS]


def test_steps_that_have_not_started_count():
    done = dict.fromkeys(("preflight", "provision", "download"), "Succeeded")
    total = sum(SECONDS.get(Step(key=key).name, 60) for key in KEYS)
    assert percent(steps(**done)) == 100 * (20 + 300 + 120) // total
    assert percent(steps(**done, tune="Running")) == percent(steps(**done)), "no jump when a step starts"


def test_a_training_counts_as_long_as_it_is_expected_to_take():
    tuned = [Step(key="tune", phase="Running", progress=(50, 100)), Step(key="evaluate")]
    assert percent(tuned) == 100 * 1800 // 4200
    assert percent(tuned, 600_000) == 49


def test_approvals_take_no_time_of_the_run():
    waiting = Step(key="approval", type="Suspend", phase="Running")
    assert percent([Step(key="tune", phase="Succeeded"), waiting]) == 100


def test_nothing_known_is_no_progress():
    assert percent([]) == 0


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(PHASES), st.integers(0, 200)), max_size=9))
def test_progress_never_falls_when_a_step_ends(found: list[tuple[str, str, int]]):
    all_steps = [Step(key=key, phase=phase, progress=(done, 100)) for key, phase, done in found]
    before = percent(all_steps)
    assert 0 <= before <= 100
    for number, step in enumerate(all_steps):
        after = [*all_steps[:number], dataclasses.replace(step, phase="Succeeded"), *all_steps[number + 1 :]]
        assert percent(after) >= before
    assert percent([dataclasses.replace(step, phase="Succeeded") for step in all_steps]) in (0, 100)


def test_a_run_is_complete_only_when_its_last_step_has_ended():
    last = Step(key="report", phase="Running", progress=(100, 100))
    assert percent([Step(key="tune", phase="Succeeded"), last]) == 99
