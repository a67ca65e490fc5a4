"""Rows are returned in the requested order with little memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.download import row_shuffle
from steps.download.row_shuffle import RowBuffer

SCHEMA = pa.schema([("text", pa.string())])


def shuffled(path: Path, texts: list[str], order: np.ndarray, at_once: int = 7) -> list[pa.Table]:
    """``texts`` in ``order``, table by table."""
    places = np.empty(len(order), np.uint32)
    places[order] = np.arange(len(order), dtype=np.uint32)
    with closing(RowBuffer(path, SCHEMA)) as spool:
        for start in range(0, len(texts), at_once):
            part = slice(start, start + at_once)
            spool.add(pa.record_batch({"text": texts[part]}, SCHEMA), places[part])
        return list(spool.iter_sorted())


def texts_of(tables: list[pa.Table]) -> list[str]:
    return [text for table in tables for text in table["text"].to_pylist()]


@settings(max_examples=30)
@given(widths=st.lists(st.integers(0, 400), min_size=1, max_size=150), seed=st.integers(0, 99), shuffle=st.booleans())
def test_rows_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], seed: int, shuffle: bool
) -> None:
    texts = [f"{number}" + "x" * width for number, width in enumerate(widths)]
    order = np.random.RandomState(seed).permutation(len(texts)) if shuffle else np.arange(len(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_shuffle, "RUN_BYTES", 3000)
        patch.setattr(row_shuffle, "BUCKET_BYTES", 1000)
        tables = shuffled(tmp_path_factory.getbasetemp() / "spool", texts, order)
    assert texts_of(tables) == [texts[row] for row in order]


def test_rows_that_become_wide_are_sorted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shuffle, "RUN_BYTES", 2_000)
    monkeypatch.setattr(row_shuffle, "BUCKET_BYTES", 10_000)
    texts = [f"{number:04}" for number in range(1000)] + [f"{number:04}" + "x" * 5000 for number in range(1000, 1100)]
    order = np.random.RandomState(1).permutation(len(texts))
    tables = shuffled(tmp_path / "spool", texts, order)
    assert texts_of(tables) == [texts[row] for row in order]
    assert max(table.nbytes for table in tables) < 60_000 < sum(table.nbytes for table in tables) / 5


def test_no_temporary_files_remain(tmp_path: Path) -> None:
    assert texts_of(shuffled(tmp_path / "spool", ["a", "b"], np.array([1, 0]))) == ["b", "a"]
    with pytest.raises(KeyError), closing(RowBuffer(tmp_path / "spool", SCHEMA)):
        raise KeyError
    assert not list(tmp_path.iterdir())
