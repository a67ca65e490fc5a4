"""Text rows in all steps: every token has loss, and the evaluation compares it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tuning import quick, small_model

from steps.download.settings import Settings as DownloadSettings
from steps.download.step import download
from steps.evaluate.settings import Settings as EvaluateSettings
from steps.evaluate.step import evaluate


def test_text_is_trained_and_evaluated(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = small_model(tmp_path_factory.getbasetemp())
    texts = [f"Number {number} is blue, as all numbers are." for number in range(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert download(DownloadSettings(work=tmp_path, source=tmp_path / "a.parquet", seed=1)).data_format == "text"
    quick(tmp_path, tiny, max_steps=12)
    result = evaluate(EvaluateSettings(work=tmp_path, model=str(tiny), method="qlora", samples=2))
    assert result.adapter_loss < result.base_loss
    evaluation = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert (evaluation["rows"], evaluation["samples"]) == (4, [])
    lengths = json.loads((tmp_path / "report" / "train.jsonl").read_text().splitlines()[0])
    assert lengths["tokens"] > 0 and "training" in capsys.readouterr().out
