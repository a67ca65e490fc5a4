"""Rows are read in batches, in any order."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data import parquet_batches
from steps.data.dataset import TEXT, read_messages, read_rejected
from steps.download.settings import Settings
from steps.download.step import download
from steps.runtime.errors import BadInput


def test_rows_by_index_and_in_order(tmp_path: Path, chats) -> None:
    rows = chats(100)
    pq.write_table(pa.table({"messages": rows}), tmp_path / "a.parquet", row_group_size=30)
    read = read_messages(tmp_path / "a.parquet")
    assert (len(read), list(read), list(read)) == (100, rows, rows)
    assert [read[number] for number in (0, 29, 30, 99, -1, 5)] == [rows[n] for n in (0, 29, 30, 99, 99, 5)]
    assert read[28:32] == rows[28:32]
    with pytest.raises(IndexError):
        read[100]


def test_wide_rows_are_read_in_small_batches(tmp_path: Path) -> None:
    texts = [f"{number}" * 100_000 for number in range(10, 60)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", use_dictionary=False)
    sizes = [batch.nbytes for batch in parquet_batches.read_batches(tmp_path / "a.parquet", ["text"], 1_000_000)]
    assert max(sizes) < 2_000_000 and len(sizes) > 4


def test_preference_pairs_and_text_of_the_download(tmp_path: Path) -> None:
    kinds = {"pairs": {"prompt": ["a"] * 5, "chosen": ["b"] * 5, "rejected": ["c"] * 5}, "texts": {"text": ["d"] * 5}}
    files = {}
    for name, columns in kinds.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        objective = "dpo" if name == "pairs" else "sft"
        source = tmp_path / f"{name}.parquet"
        download(Settings(work=tmp_path / name, source=source, eval_split=0, objective=objective))
        files[name] = tmp_path / name / "dataset" / "train.parquet"
    asked, answered = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert list(read_messages(files["pairs"])) == [[asked, answered]] * 5
    assert list(read_rejected(files["pairs"])) == [[{"role": "assistant", "content": "c"}]] * 5
    assert list(read_messages(files["texts"])) == [[{"role": TEXT, "content": "d"}]] * 5
    assert not read_rejected(files["texts"])
    with pytest.raises(BadInput, match="columns messages and text not found"):
        read_messages(tmp_path / "pairs.parquet")
