"""Time that steps hold GPUs, recorded by attempt and cause, and the budget."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.runtime import gpu_time
from steps.runtime.errors import TimeLimit
from steps.runtime.gpu_time import EVALUATING, LOADING, TRAINING, GpuTimer


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def attempt(work: Path, clock: Clock, step: str, *spans: tuple[str, float], execution: str = "") -> None:
    timer = GpuTimer(work, step, execution=execution, clock=clock)
    for cause, seconds in spans:
        timer.switch(cause)
        clock.now += seconds
    timer.save()


def test_attempts_are_recorded_by_cause(tmp_path: Path) -> None:
    clock = Clock()
    attempt(tmp_path, clock, "tune", (LOADING, 30), (TRAINING, 60))
    clock.now += 500
    attempt(tmp_path, clock, "tune", (LOADING, 20), (TRAINING, 40))
    attempt(tmp_path, clock, "evaluate", (LOADING, 10), (EVALUATING, 5))
    attempts = gpu_time.read(tmp_path)
    assert [record.step for record in attempts] == ["tune", "tune", "evaluate"]
    assert [record.total for record in attempts] == [90, 60, 15]
    assert gpu_time.sum_seconds(attempts, LOADING) == 60
    assert gpu_time.sum_seconds(attempts, LOADING, "tune") == 50
    assert gpu_time.sum_seconds(attempts, TRAINING, "tune") == 100


def test_candidates_count_for_their_run(tmp_path: Path) -> None:
    clock = Clock()
    for name in ("slow", "fast"):
        attempt(tmp_path / "candidates" / name, clock, "tune", (TRAINING, 7))
    assert [record.total for record in gpu_time.read(tmp_path)] == [7, 7]


def test_the_budget_counts_all_attempts(tmp_path: Path) -> None:
    clock = Clock()
    attempt(tmp_path, clock, "tune", (TRAINING, 3000))
    timer = GpuTimer(tmp_path, "evaluate", budget_hours=1, clock=clock)
    clock.now += 599
    timer.check_budget("nothing")
    clock.now += 1
    with pytest.raises(TimeLimit, match=r"budget of 1 hours .*\(pipeline.budget\) is used up: 3 models are") as caught:
        timer.check_budget("3 models are evaluated")
    assert "--resume -p budget-hours=HOURS" in caught.value.fix
    assert not GpuTimer(tmp_path, "tune", clock=Clock(clock.now + 1e6)).is_budget_used_up()


def test_a_used_budget_starts_no_step(tmp_path: Path) -> None:
    attempt(tmp_path, Clock(), "tune", (TRAINING, 4000))
    with pytest.raises(TimeLimit, match="evaluate did not start"), gpu_time.measure(tmp_path, "evaluate", 1):
        raise AssertionError("measured")


def test_a_killed_attempt_is_recorded(tmp_path: Path) -> None:
    code = f"""
import os, pathlib, signal
from steps.runtime import gpu_time
gpu_time.SAVE_SECONDS = 0.01
work = pathlib.Path({str(tmp_path)!r})
with gpu_time.measure(work, "tune") as timer:
    timer.switch("training")
    while not gpu_time.sum_seconds(gpu_time.read(work), "training"):
        pass
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    [killed] = gpu_time.read(tmp_path)
    assert killed.seconds[TRAINING] > 0


def test_a_pod_counts_from_its_init_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = tmp_path / "argoexec"
    init.touch()
    monkeypatch.setattr(gpu_time, "INIT_FILE", init)
    clock = Clock(init.stat().st_ctime + 100)
    assert GpuTimer(tmp_path / "local", "tune", clock=clock).seconds == {LOADING: 0}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    timer = GpuTimer(tmp_path / "pod", "tune", clock=clock)
    assert timer.seconds[LOADING] == pytest.approx(100)
    clock.now += 20
    timer.save()
    # A second training of the same pod (it did not fit one GPU) does not count that time again.
    assert GpuTimer(tmp_path / "pod", "tune", clock=clock).seconds[LOADING] == pytest.approx(0, abs=0.2)


def test_a_full_disk_fails_no_step(tmp_path: Path) -> None:
    (tmp_path / gpu_time.FOLDER).write_text("not a folder")
    with gpu_time.measure(tmp_path, "tune") as timer:
        timer.switch(TRAINING)
    assert gpu_time.read(tmp_path) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["loading", "training", "x"]), inner),
    max_leaves=5,
)


@given(step=JSON, started=JSON | st.just("2026-11-24T10:00:00+00:00"), seconds=JSON)
def test_damaged_records_are_omitted(step: object, started: object, seconds: object) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        folder = Path(name) / gpu_time.FOLDER
        folder.mkdir()
        text = json.dumps({"step": step, "started": started, "seconds": seconds})
        (folder / "tune-1.json").write_text(text)
        (folder / "tune-2.json").write_bytes(os.urandom(8))
        assert all(0 <= record.total < float("inf") for record in gpu_time.read(Path(name)))


def test_concurrent_trials_share_the_budget_of_the_node(tmp_path: Path) -> None:
    """Two trials of 60 and 100 seconds that start together use 100 seconds of the budget."""
    clock = Clock()
    start = clock.now
    timers = [GpuTimer(tmp_path / "candidates" / name, "tune", clock=clock) for name in ("one", "two")]
    for seconds, timer in zip((60, 100), timers, strict=True):
        clock.now = start + seconds
        timer.save()
    assert sorted(attempt.total for attempt in gpu_time.read(tmp_path)) == [60, 100]
    third = GpuTimer(tmp_path / "candidates" / "three", "tune", 101 / 3600, clock=clock)
    assert not third.is_budget_used_up()
    clock.now += 1.1
    assert third.is_budget_used_up()


def test_a_step_counts_all_attempts_of_its_execution(tmp_path: Path) -> None:
    """A trial of a search with successive halving, whose rungs tune it again.

    An attempt that succeeds counts too: its pod can be lost before Argo reads its outputs.
    """
    clock, trial = Clock(), tmp_path / "candidates" / "one"
    totals = []
    for rung in ("rung 1", "rung 2"):
        attempt(tmp_path / "candidates" / "two", clock, "tune", (TRAINING, 500), execution=rung)
        attempt(trial, clock, "evaluate", (EVALUATING, 7), execution=rung)
        attempt(trial, clock, "tune", (LOADING, 10), (TRAINING, 100), execution=rung)
        timer = GpuTimer(trial, "tune", execution=rung, clock=clock)
        timer.switch(TRAINING)
        clock.now += 5
        totals.append((timer.step_seconds(LOADING), timer.step_seconds(TRAINING)))
        timer.save()
    assert totals == [(10, 105), (10, 105)]


def test_a_retry_of_a_successful_attempt_reports_its_time(tmp_path: Path) -> None:
    with gpu_time.measure(tmp_path, "tune") as first:
        first.switch(TRAINING)
        first._since -= 60  # a minute of training
    with gpu_time.measure(tmp_path, "tune") as second:
        assert second.step_seconds(TRAINING) == pytest.approx(60, abs=5)
