"""Curves, errors and rows of short trainings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import trainable_model

from steps.runtime.errors import BadInput, InsufficientCapacity, StepError
from steps.tune_bench import rows, trial


def write_curve(work: Path, text: str) -> Path:
    file = work / "report" / "train.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return work


def line(tokens: int, seconds: float, memory_gib: float) -> str:
    return json.dumps({"tokens": tokens, "seconds": seconds, "memory_gib": memory_gib}) + "\n"


def test_the_first_step_and_an_incomplete_line_do_not_count(tmp_path: Path) -> None:
    assert trial.read_curve(tmp_path) is None
    assert trial.read_curve(write_curve(tmp_path, line(100, 9.0, 2.0))) is None
    text = line(100, 9.0, 2.0) + line(200, 10.0, 1.5) + line(300, 11.5, 1.6) + '{"tokens": 4'
    assert trial.read_curve(write_curve(tmp_path, text)) == trial.Curve(500, 2.5, 2, 2.0)


@pytest.mark.parametrize(
    ("code", "log", "kind", "message", "fix"),
    [
        (2, "a\nerror: rank: too large\n  fix: use less\n", BadInput, "rank: too large", "use less"),
        (4, "error: out of memory\n", InsufficientCapacity, "out of memory", ""),
        (1, "Killed", StepError, "the training ended with exit code 1", ""),
        (-9, "", InsufficientCapacity, "the training was killed by SIGKILL (possibly out of memory)", "reduce"),
    ],
)
def test_the_error_of_a_training_is_passed_on(
    code: int, log: str, kind: type[StepError], message: str, fix: str
) -> None:
    error = trial._failure(code, log)
    assert (type(error), error.message) == (kind, message)
    assert error.fix.startswith(fix)


def test_rows_are_sampled_from_all_row_groups(tmp_path: Path) -> None:
    source, target = tmp_path / "dataset" / "train.parquet", tmp_path / "sample" / "train.parquet"
    messages = trainable_model.chat_rows(1000)
    trainable_model.write_rows(source, messages)
    pq.write_table(pq.read_table(source), source, row_group_size=300)
    assert rows.write_rows(source, target, seed=1) == 1000
    chosen = sorted(random.Random(1).sample(range(1000), rows.MAX_ROWS))
    assert pq.read_table(target).column("messages").to_pylist() == [messages[number] for number in chosen]


def test_rows_are_generated_without_a_dataset(tmp_path: Path) -> None:
    target = tmp_path / "sample" / "train.parquet"
    assert rows.write_rows(tmp_path / "missing.parquet", target, seed=1) == 0
    generated = pq.read_table(target).column("messages").to_pylist()
    assert len(generated) == rows.GENERATED_ROWS
    assert {message["role"] for row in generated for message in row} == {"user", "assistant"}


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    source = tmp_path / "train.parquet"
    trainable_model.write_rows(source, trainable_model.chat_rows(1))
    pq.write_table(pq.read_table(source).slice(0, 0), source)
    with pytest.raises(BadInput, match="no rows"):
        rows.write_rows(source, tmp_path / "sample.parquet", seed=1)
