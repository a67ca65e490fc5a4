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
ANSWER = re.compile(r"Cause: .+\.\nCheck: kubectl .+[^.]\nRunbook: RB-[a-z]+")


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


def test_answers_have_three_lines_and_questions_are_unique(made: Path) -> None:
    rows = pq.read_table(made)["messages"].to_pylist()
    assert all(ANSWER.fullmatch(answer["content"]) for _, answer in rows)
    assert not any("{" in turn["content"] for row in rows for turn in row)
    assert len({question["content"] for question, _ in rows}) == len(rows) == 160
    runbooks = Counter(answer["content"].rpartition(" ")[2] for _, answer in rows)
    assert set(runbooks.values()) == {20} and len(runbooks) == 8


def test_download_step_accepts_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = download(Settings(work=tmp_path, source=DATA))
    assert (result.rows, result.eval_rows, result.data_format) == (144, 16, "messages")
    assert "warning" not in capsys.readouterr().out

    def runbooks(name: str) -> set[str]:
        rows = pq.read_table(tmp_path / "dataset" / name)["messages"].to_pylist()
        return {answer["content"].rpartition(" ")[2] for _, answer in rows}

    assert len(runbooks("train.parquet")) == 8
    assert runbooks("eval.parquet") <= runbooks("train.parquet") and len(runbooks("eval.parquet")) >= 6


def test_the_question_of_the_example_is_in_no_row(made: Path) -> None:
    question = "The pods of checkout in namespace shop are in CrashLoopBackOff. What now?"
    assert f'question: "{question}"' in (DATA.parent / "smollm2_135m_qlora_parquet.yaml").read_text()
    questions = {row[0]["content"] for row in pq.read_table(made)["messages"].to_pylist()}
    assert not any(question.startswith(other) or other in question for other in questions)
