"""Hours of a local run, from what `argotune tune-bench` has measured."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace_sample import GOOD, URL, write

from steps.runtime import machine
from workflows.commands import tune_bench
from workflows.compile import settings
from workflows.estimate import measured_speed, show_local
from workflows.load_plans import load_plans
from workflows.plan.model import Plan

NOW = datetime(2026, 11, 29, tzinfo=UTC)
RESULT: dict[str, Any] = {
    "device": "cpu (2 threads)",
    "dtype": "bfloat16",
    "probe": "layer with 256 tokens in bfloat16 and float32: 24 and 58 ms, speed 2.42 to 1",
    "speeds": [
        {"dtype": "float32", "tokens_per_second": 400.0, "rows_per_second": 4.0, "memory_gib": 3.0, "steps": 5},
        {"dtype": "bfloat16", "tokens_per_second": 200.0, "rows_per_second": 2.0, "memory_gib": 2.0, "steps": 3},
    ],
    "tokens_per_row": 100.0,
    "rows": 7200,
    "global_batch_size": 4,
}


def load(folder: Path, *sets: str, text: str = GOOD) -> Plan:
    [plan] = load_plans(str(write(folder, text)), sets)
    return plan


def measure(home: Path, plan: Plan, **changes: Any) -> measured_speed.MeasuredSpeed:
    data = measured_speed.data_digest(plan)
    return measured_speed.write(home, settings.tune_bench(plan), RESULT | changes, data, NOW)


def read(home: Path, plan: Plan) -> measured_speed.MeasuredSpeed | None:
    return measured_speed.read(home, settings.tune_bench(plan))


def test_a_measurement_is_found_again(tmp_path: Path) -> None:
    plan = load(tmp_path)
    assert read(tmp_path, plan) is None
    assert measure(tmp_path, plan) == read(tmp_path, plan)


@pytest.mark.parametrize("change", ["tuning.epochs=7", "tuning.learningRate=1e-5", "tuning.seed=1", "tuning.alpha=1"])
def test_settings_that_do_not_change_the_speed_share_a_measurement(tmp_path: Path, change: str) -> None:
    measure(tmp_path, load(tmp_path))
    assert read(tmp_path, load(tmp_path, change))


@pytest.mark.parametrize(
    "change",
    ["tuning.rank=2", "tuning.batchSize=1", "tuning.maxLength=64", "tuning.method=lora", "model.revision=abc"],
)
def test_other_settings_have_no_measurement(tmp_path: Path, change: str) -> None:
    measure(tmp_path, load(tmp_path))
    assert read(tmp_path, load(tmp_path, change)) is None


def test_another_machine_has_no_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = load(tmp_path)
    measure(tmp_path, plan)
    monkeypatch.setattr(machine, "processor", lambda: "another one")
    assert read(tmp_path, plan) is None


def test_hours_are_those_of_all_rows_and_epochs(tmp_path: Path) -> None:
    plan = load(tmp_path, "tuning.epochs=3")
    time = measured_speed.local_time(measure(tmp_path, plan), plan)
    assert (time.rows, time.training_hours, time.is_upper_bound) == (7200, pytest.approx(3.0), False)
    assert measured_speed.local_time(measure(tmp_path, plan), plan, rows=3600).training_hours == pytest.approx(1.5)
    assert "training" in show_local.as_text(time.speed, time) and "3.00  hours on this machine, 7,200 rows" in (
        show_local.as_text(time.speed, time)
    )


def test_steps_limit_the_hours(tmp_path: Path) -> None:
    plan = load(tmp_path, "tuning.maxSteps=900")
    assert measured_speed.local_time(measure(tmp_path, plan), plan).training_hours == pytest.approx(0.5)


def test_all_trials_of_a_search_count(tmp_path: Path) -> None:
    text = GOOD + "  evaluation: {maxLossRatio: 0.9}\n  search: {parameters: {learningRate: [0.1, 0.2, 0.3]}}\n"
    plan = load(tmp_path, "tuning.epochs=1", text=text)
    assert measured_speed.local_time(measure(tmp_path, plan), plan).training_hours == pytest.approx(3.0)


def test_other_rows_count_with_the_maximum_length(tmp_path: Path) -> None:
    speed = measure(tmp_path, load(tmp_path))
    other = load(tmp_path, "tuning.epochs=1", "tuning.maxLength=1000", text=GOOD.replace("train.parquet?", "b.csv?"))
    time = measured_speed.local_time(speed, other)
    assert (time.rows, time.training_hours, time.is_upper_bound) == (None, None, True)
    assert time.hours_per_thousand_rows == pytest.approx(1000 / (2.0 * 100 / 1000) / 3600)
    assert "hours at most, all epochs" in show_local.as_text(speed, time)


def test_a_renewed_signature_is_the_same_data(tmp_path: Path) -> None:
    signed = [URL.replace("download=true", f"sv=1&sig={text}") for text in ("one", "two")]
    first, second = (measured_speed.data_digest(load(tmp_path, text=GOOD.replace(URL, url))) for url in signed)
    assert first == second


def test_a_dtype_that_is_faster_than_the_used_one_is_reported(tmp_path: Path) -> None:
    plan = load(tmp_path)
    text = show_local.as_text(measure(tmp_path, plan), None)
    assert "2.00  times, with ModelConfig.torch_dtype: float32" in text
    assert "faster" not in show_local.as_text(measure(tmp_path, plan, dtype="float32"), None)


@given(st.binary(max_size=200) | st.sampled_from(["NaN", "[]", "{}", '{"speeds": 1e999}']).map(str.encode))
def test_a_damaged_file_counts_as_none(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged-measurement"
    folder.mkdir(exist_ok=True)
    plan = load(folder)
    measure(folder, plan)
    [file] = (folder / measured_speed.FOLDER).glob("*.json")
    file.write_bytes(content)
    assert read(folder, plan) is None


@pytest.mark.parametrize(
    ("field", "value"), [("tokens_per_row", 0), ("tokens_per_row", "inf"), ("rows", -1), ("speeds", []), ("device", 1)]
)
def test_impossible_values_count_as_none(tmp_path: Path, field: str, value: object) -> None:
    plan = load(tmp_path)
    measure(tmp_path, plan)
    [file] = (tmp_path / measured_speed.FOLDER).glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    assert read(tmp_path, plan) is None


def test_the_plan_says_what_was_measured(tmp_path: Path, argotune: Any) -> None:
    plan = load(tmp_path)
    measure(tmp_path / "home", plan)
    file, home = tmp_path / "workspace.yaml", str(tmp_path / "home")
    shown = argotune("plan", file, ARGOTUNE_HOME=home)
    assert "THIS MACHINE (cpu (2 threads); argotune tune-bench, 2026-11-29)" in shown.stdout, shown.stderr
    local = json.loads(argotune("plan", file, "--rows", "10", "-o", "json", ARGOTUNE_HOME=home).stdout)["local"]
    assert (local["rows"], local["dtype"]) == (10, "bfloat16")
    assert local["speeds"][0] == {"dtype": "float32", "tokensPerSecond": 400.0, "memoryGiB": 3.0}, "not redacted"
    assert "THIS MACHINE" not in argotune("plan", file, ARGOTUNE_HOME=str(tmp_path / "other")).stdout


def test_a_preset_is_measured_with_the_settings_of_its_workspace(tmp_path: Path) -> None:
    plan = load(tmp_path)
    parser = tune_bench.argparse.ArgumentParser()
    tune_bench.add_arguments(parser)
    args = parser.parse_args(["--preset", plan.model.preset])
    speed = measured_speed.write(tmp_path, tune_bench._settings(None, args), RESULT, "", NOW)
    assert read(tmp_path, plan) == speed
    assert measured_speed.local_time(speed, plan).is_upper_bound


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--source", "rows"], "--source needs a Workspace"),
        (["--full"], "--full needs a Workspace"),
        (["--preset", "smollm"], "unknown preset 'smollm'"),
        (["workspace.yaml", "--preset", "phi-4"], "--preset cannot be combined with a Workspace"),
    ],
)
def test_flags_that_have_no_effect_are_rejected(tmp_path: Path, argotune: Any, flags: list[str], message: str) -> None:
    refused = argotune("tune-bench", *flags, cwd=tmp_path)
    assert refused.returncode == 2
    assert message in refused.stderr and "fix: " in refused.stderr
