"""Rows are repeated by the weight of their file: counts, determinism, positions and memory."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.download import resampling, row_shuffle
from steps.download.resampling import RowPlacement, resample
from steps.download.row_shuffle import RowBuffer
from steps.download.rows import split
from steps.runtime.errors import BadInput

SCHEMA = pa.schema([("text", pa.string())])
FILES = st.lists(
    st.tuples(st.integers(1, 60), st.one_of(st.integers(0, 5).map(float), st.floats(0, 7, allow_nan=False))),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150)
@given(files=FILES, held=st.sampled_from([0, 0.1, 0.5]), shuffle=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_rows_are_repeated_by_the_weight_of_their_file(
    files: list[tuple[int, float]], held: float, shuffle: bool, seed: int
) -> None:
    counts, weights = [count for count, _ in files], [weight for _, weight in files]
    total = sum(counts)
    if total == 1 and held:
        return
    train, held_out = split(total, held, shuffle, seed)
    ends = np.cumsum(counts)
    rows_of_files = [
        np.sort(train[(end - count <= train) & (train < end)]) for count, end in zip(counts, ends, strict=True)
    ]
    try:
        order, of_files = resample(train, counts, weights, shuffle, seed)
    except BadInput:
        assert all(weight * len(rows) < 0.5 for weight, rows in zip(weights, rows_of_files, strict=True))
        return
    times = np.bincount(order, minlength=total)
    for rows, weight, told in zip(rows_of_files, weights, of_files, strict=True):
        # As many as the weight says on the whole, and no row more than once more often than another.
        assert sum(times[rows]) == told and abs(told - weight * len(rows)) <= 0.5 + 1e-6
        assert all(int(weight) <= times[row] <= int(weight) + (weight % 1 > 0) for row in rows)
    assert not set(order.tolist()) & set(held_out.tolist())
    again, _ = resample(train, counts, weights, shuffle, seed)
    assert (again == order).all()


def test_half_of_a_file_depends_on_the_seed() -> None:
    train = np.arange(200, dtype=np.uint32)
    halves = [set(resample(train, [100, 100], [0.5, 1], True, seed)[0].tolist()) for seed in (1, 2)]
    assert [len(half) for half in halves] == [150, 150]
    assert halves[0] != halves[1] and set(range(100, 200)) < halves[0] & halves[1]


def test_without_shuffle_rows_repeat_after_a_full_pass() -> None:
    order, _ = resample(np.arange(5, dtype=np.uint32), [2, 3], [3, 1], False, 42)
    assert order.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1]


def test_with_shuffle_copies_are_spread() -> None:
    train, _ = split(1000, 0, True, 42)
    order, _ = resample(train, [100, 900], [10, 1], True, 42)
    first = (order[: len(order) // 2] < 100).sum()
    assert 400 < first < 600


def test_resampling_is_deterministic() -> None:
    """Data prepared with another version of numpy is the same data."""
    order, of_files = resample(np.arange(12, dtype=np.uint32), [6, 6], [1.5, 0.5], True, 42)
    assert (order.tolist(), of_files) == ([4, 3, 0, 11, 5, 2, 1, 5, 4, 8, 3, 6], [9, 3])


def test_empty_and_too_large_results(monkeypatch: pytest.MonkeyPatch) -> None:
    train = np.arange(3, dtype=np.uint32)
    with pytest.raises(BadInput, match="0 training rows"):
        resample(train, [3, 0], [0.1, 1], True, 42)
    monkeypatch.setattr(resampling, "MAX_ROWS", 100)
    with pytest.raises(BadInput, match="102 training rows"):
        resample(train, [3], [34], True, 42)


@settings(max_examples=60)
@given(
    widths=st.lists(st.integers(0, 300), min_size=2, max_size=60),
    weight=st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.3]),
    at_once=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_each_copy_is_at_its_position(
    tmp_path_factory: pytest.TempPathFactory, widths: list[int], weight: float, at_once: int, seed: int
) -> None:
    texts = [f"{number}" + "x" * width for number, width in enumerate(widths)]
    half = len(texts) // 2
    train, held_out = split(len(texts), 0.1, True, seed)
    counts = [half, len(texts) - half]
    try:
        train, _ = resample(train, counts, [weight, 1], True, seed)
    except BadInput:
        assert weight < 1
        return
    places = RowPlacement(train, held_out, len(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_shuffle, "RUN_BYTES", 3000)
        patch.setattr(row_shuffle, "BUCKET_BYTES", 1000)
        with closing(RowBuffer(tmp_path_factory.getbasetemp() / "copies", SCHEMA)) as spool:
            for start in range(0, len(texts), at_once):
                batch = pa.record_batch({"text": texts[start : start + at_once]}, SCHEMA)
                for rows, to in places.place(batch):
                    assert rows.nbytes <= batch.nbytes
                    spool.add(rows, to)
            found = [text for table in spool.iter_sorted() for text in table["text"].to_pylist()]
    assert found == [texts[row] for row in [*train, *held_out]]


def test_memory_does_not_grow_with_the_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_shuffle, "RUN_BYTES", 20_000)
    monkeypatch.setattr(row_shuffle, "BUCKET_BYTES", 10_000)
    texts = [f"{number:04}" for number in range(500)] + [f"{number:04}" + "x" * 2000 for number in range(500, 520)]
    train, _ = resample(np.arange(520, dtype=np.uint32), [500, 20], [1, 50], True, 42)
    places = RowPlacement(train, np.empty(0, np.uint32), 520)
    runs: list[int] = []
    with closing(RowBuffer(tmp_path / "spool", SCHEMA)) as spool:
        whole = spool._write_run
        monkeypatch.setattr(spool, "_write_run", lambda: (runs.append(spool.pending_bytes), whole())[1])
        for start in range(0, 520, 5):
            for rows, to in places.place(pa.record_batch({"text": texts[start : start + 5]}, SCHEMA)):
                spool.add(rows, to)
        tables = list(spool.iter_sorted())
    assert [text for table in tables for text in table["text"].to_pylist()] == [texts[row] for row in train]
    assert max(runs) < 32_000 and max(table.nbytes for table in tables) < 60_000
    assert sum(table.nbytes for table in tables) > 2_000_000
