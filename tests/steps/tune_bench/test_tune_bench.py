"""`argotune tune-bench` with a small model, in real processes; `argotune plan` uses its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from tuning import one_thread, small_model

WORKSPACE: dict[str, Any] = {
    "apiVersion": "kaito.sh/v1beta1",
    "kind": "Workspace",
    "metadata": {"name": "weekly"},
    "tuning": {
        "preset": {"name": "smollm2-135m-instruct"},
        "method": "qlora",
        "input": {"volumeSource": {"persistentVolumeClaim": {"claimName": "rows"}}},
        "output": {"image": "registry.example.com/a/b:1"},
    },
}
SECONDS = "0.05"


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


def command(folder: Path, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process: a fork of this one would have the locks of torch's threads."""
    environment = one_thread() | {"ARGOTUNE_HOME": str(folder / "home")}
    words = [sys.executable, "-m", "workflows.cli", name, *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def workspace(folder: Path) -> Path:
    trainable_model.write_rows(folder / "rows" / "a.parquet", trainable_model.chat_rows(40))
    file = folder / "workspace.yaml"
    file.write_text(json.dumps(WORKSPACE))
    return file


def test_the_plan_uses_the_measured_speed(tmp_path: Path, tiny: Path) -> None:
    flags = (workspace(tmp_path), "--set", f"model.repository={tiny}", "--set", "tuning.maxLength=128")
    flags = (*flags, "--set", 'tuning.modelConfig={"torch_dtype": "float32"}')
    measured = command(tmp_path, "tune-bench", *flags, "--source", tmp_path / "rows", "--seconds", SECONDS)
    assert measured.returncode == 0, measured.stderr
    assert "THIS MACHINE (cpu (1 threads); argotune tune-bench, " in measured.stdout
    assert "training in bfloat16" not in measured.stdout, "the user has chosen a dtype"

    local = json.loads(command(tmp_path, "plan", *flags, "-o", "json").stdout)["local"]
    assert local["dtype"] == "float32"
    assert local["rows"] == 36, "a tenth of 40 rows is held out"
    [speed] = local["speeds"]
    assert speed["tokensPerSecond"] > 0
    assert 0.1 < speed["memoryGiB"] < 8
    assert local["hours"] > 0 and not local["upperBound"]


@pytest.mark.slow
def test_both_types_are_measured_with_generated_rows(tmp_path: Path, tiny: Path) -> None:
    words = [sys.executable, "-m", "steps.tune_bench", f"--work={tmp_path}", f"--model={tiny}", f"--seconds={SECONDS}"]
    environment = {name: value for name, value in os.environ.items() if name != "ARGOTUNE_COMPUTE_DTYPE"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / "tune_bench.json").read_text())["result"]
    assert [speed["dtype"] for speed in result["speeds"]] == ["float32", "bfloat16"]
    assert all(speed["tokens_per_second"] > 0 and speed["steps"] >= 1 for speed in result["speeds"])
    assert result["rows"] == 0 and result["tokens_per_row"] > 50
    assert "layer with" in result["probe"]


@pytest.mark.slow
def test_a_training_that_fails_ends_the_measurement_with_its_error(tmp_path: Path, tiny: Path) -> None:
    arguments = {"optim": "adamw_8bit_of_a_typo"}
    flags = ("--set", f"model.repository={tiny}", "--set", f"tuning.trainingArguments={json.dumps(arguments)}")
    failed = command(tmp_path, "tune-bench", workspace(tmp_path), *flags, "--source", tmp_path / "rows")
    assert failed.returncode == 2, failed.stdout
    assert "error: " in failed.stderr and "optim" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "home" / "tune-bench").exists()


@pytest.mark.slow
def test_the_estimate_is_near_a_real_training(tmp_path: Path) -> None:
    """SmolLM2, in float32: the memory and the tokens of a training of the same settings."""
    model = ("--preset=smollm2-135m-instruct", '--model-config={"torch_dtype": "float32"}', "--max-length=256")
    trainable_model.write_rows(tmp_path / "dataset" / "train.parquet", trainable_model.chat_rows(40))
    for step, flags in (("tune_bench", ("--seconds=5",)), ("tune", ("--max-steps=6",))):
        words = [sys.executable, "-m", f"steps.{step}", f"--work={tmp_path}", *model, *flags]
        done = subprocess.run(words, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "results" / "tune_bench.json").read_text())["result"]
    [speed] = result["speeds"]
    curve = trainable_model.curve(tmp_path)
    assert speed["dtype"] == result["dtype"] == "float32"
    assert speed["memory_gib"] == pytest.approx(max(line["memory_gib"] for line in curve), rel=0.25)
    tokens_per_row = sum(line["tokens"] for line in curve) / (len(curve) * result["global_batch_size"])
    assert result["tokens_per_row"] == pytest.approx(tokens_per_row, rel=0.15)
    assert speed["tokens_per_second"] / speed["rows_per_second"] == pytest.approx(result["tokens_per_row"], rel=0.01)
