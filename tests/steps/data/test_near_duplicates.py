"""Near-duplicates by MinHash, compared with exact Jaccard similarities."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from steps.data import near_duplicates
from steps.data.near_duplicates import NearDuplicates, count_near_duplicates, signature, similar_pairs


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    words = [f"word{number}" for number in range(2000)]
    return [" ".join(rng.choices(words, k=80)) for _ in range(count)]


def change_words(text: str, count: int) -> str:
    words = text.split()
    for position in range(count):
        words[position * 7] = f"other{position}"
    return " ".join(words)


def write(path: Path, texts: list[str]) -> Path:
    chats = [[{"role": "user", "content": "Q?"}, {"role": "assistant", "content": text}] for text in texts]
    pq.write_table(pa.table({"messages": chats}), path)
    return path


def test_similar_texts_are_found_and_others_are_not():
    texts = sentences(300)
    changed = [change_words(text, 1) for text in texts[:50]]
    pairs = similar_pairs([*texts, *changed])
    assert all(second == 300 + first for first, second in pairs)
    assert len(pairs) >= 45


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_estimate_is_near_the_similarity(one, two):
    def grams(text: str) -> set[bytes]:
        content = " ".join(text.lower().split()).encode().ljust(8, b" ")
        return {content[at : at + 8] for at in range(len(content) - 7)}

    exact = len(grams(one) & grams(two)) / len(grams(one) | grams(two))
    estimate = float(np.mean(signature(one) == signature(two)))
    if exact in (0, 1):
        assert estimate == exact


def test_the_estimate_of_long_texts():
    for text in sentences(20, seed=3):
        other = change_words(text, 5)
        one, two = ({text[at : at + 8] for at in range(len(text) - 7)} for text in (text, other))
        exact = len(one & two) / len(one | two)
        assert abs(float(np.mean(signature(text) == signature(other))) - exact) < 0.25


def test_case_and_spaces_do_not_matter():
    assert similar_pairs(["The disk of web-1 is full.", "the  disk of WEB-1\nis full."]) == {(0, 1)}


def test_held_out_rows_that_are_nearly_training_rows_are_counted(tmp_path):
    texts = sentences(40)
    train = write(tmp_path / "train.parquet", [*texts, change_words(texts[0], 1), texts[1]])
    held_out = write(tmp_path / "eval.parquet", [change_words(texts[2], 1), texts[3], *sentences(5, seed=9)])
    counted = count_near_duplicates(train, held_out)
    assert counted == NearDuplicates(rows=41, eval_rows=6, duplicates=1, leaked=1)
    assert counted.warnings(42, 7) == [
        "1 rows are nearly equal to another row",
        "1 held-out rows are nearly training rows: the evaluation is biased",
    ]


def test_a_sample_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_ROWS", 10)
    texts = sentences(8)
    train = write(tmp_path / "train.parquet", [*texts, change_words(texts[0], 1), *sentences(30, seed=5)])
    counted = count_near_duplicates(train, tmp_path / "absent.parquet")
    assert counted == NearDuplicates(rows=10, eval_rows=0, duplicates=1, leaked=0)
    assert counted.warnings(39, 0) == [
        "1 rows are nearly equal to another row (compared: the first 10 of 39 training rows)"
    ]


def test_texts_of_continued_pretraining(tmp_path):
    texts = sentences(5)
    pq.write_table(pa.table({"text": [*texts, change_words(texts[4], 1)]}), tmp_path / "train.parquet")
    assert count_near_duplicates(tmp_path / "train.parquet", tmp_path / "eval.parquet").duplicates == 1
