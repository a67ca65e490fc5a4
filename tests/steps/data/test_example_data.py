"""The example dataset equals the output of its script, and matches its card."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from steps.download.settings import Settings
from steps.download.step import download

DATA = Path(__file__).parents[3] / "examples" / "data"
ANSWER = re.compile(r"Cause: .+\.\nCheck: kubectl .+[^.]\nFix: .+\.\nRunbook: RB-1\d\d")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("made") / "oncall.parquet"
    runpy.run_path(str(DATA / "make_oncall.py"))["write"](file)
    return file


def test_script_writes_the_file(made: Path) -> None:
    kept = DATA / "oncall.parquet"
    assert pq.read_table(made).equals(pq.read_table(kept))
    # Another pyarrow writes its version into the file and may encode otherwise.
    if pq.read_metadata(made).created_by == pq.read_metadata(kept).created_by:
        assert made.read_bytes() == kept.read_bytes()


def test_answers_have_four_lines_and_questions_are_unique(made: Path) -> None:
    rows = pq.read_table(made)["messages"].to_pylist()
    assert all(ANSWER.fullmatch(answer["content"]) for _, answer in rows)
    assert not any("{" in turn["content"] for row in rows for turn in row)
    assert len({question["content"] for question, _ in rows}) == len(rows) == 600
    runbooks = Counter(answer["content"][-6:] for _, answer in rows)
    assert set(runbooks.values()) == {15} and sorted(runbooks) == [f"RB-{number}" for number in range(101, 141)]


def test_download_step_accepts_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = download(Settings(work=tmp_path, source=DATA))
    assert (result.rows, result.eval_rows, result.data_format) == (540, 60, "messages")
    assert "warning" not in capsys.readouterr().out

    def runbooks(name: str) -> set[str]:
        rows = pq.read_table(tmp_path / "dataset" / name)["messages"].to_pylist()
        return {answer["content"][-6:] for _, answer in rows}

    assert len(runbooks("train.parquet")) == 40
    assert runbooks("eval.parquet") < runbooks("train.parquet") and len(runbooks("eval.parquet")) > 25
