"""Rows are tokenized once; cached tokens equal those in memory."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import trainable_model
from tuning import quick, small_model, with_rows

from steps.data import chat_tokens
from steps.data.chat_tokens import prepare, tokenize
from steps.data.dataset import Rows, read_messages
from steps.data.token_cache import TokenRows, prepare_cached
from steps.data.tokenization import Tokenization
from steps.runtime.errors import BadInput
from steps.tune import batching

LENGTH = 16


@pytest.fixture
def tokenizer() -> Any:
    return trainable_model.make_tokenizer()


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    trainable_model.write_rows(tmp_path / "rows.parquet", trainable_model.chat_rows(60))
    return read_messages(tmp_path / "rows.parquet")


@pytest.fixture
def batch_sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows in each call of the tokenizer."""
    calls: list[int] = []
    real = chat_tokens._tokenize_batch

    def counting(tokenizer: Any, rows: Any, *rest: Any) -> Any:
        calls.append(len(rows))
        return real(tokenizer, rows, *rest)

    monkeypatch.setattr(chat_tokens, "_tokenize_batch", counting)
    return calls


def test_cached_tokens_equal_those_in_memory(tokenizer: Any, rows: Rows, tmp_path: Path) -> None:
    expected = prepare(tokenizer, rows, Tokenization(LENGTH))
    found = prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(LENGTH))
    assert 0 < len(expected.rows) < 60 and expected.truncated  # rows of each fate
    assert (list(found.rows), found.numbers) == (expected.rows, expected.numbers)
    assert [found.rows[n] for n in (0, 5, -1)] == [expected.rows[n] for n in (0, 5, -1)]
    assert 0 < found.cut_tokens == expected.cut_tokens
    assert found.warnings(60, LENGTH) == expected.warnings(60, LENGTH)
    assert random.Random(1).sample(found.numbers, 3) == random.Random(1).sample(list(expected.numbers), 3)
    mapped, made = batching.dataset(found.rows, {}), batching.dataset(expected.rows, {})
    assert mapped.cache_files and mapped.to_dict() == made.to_dict()
    packing = {"packing": True, "max_length": 256}
    assert batching.dataset(found.rows, packing).to_dict() == batching.dataset(expected.rows, packing).to_dict()


def test_batched_tokenization_equals_single_rows(tokenizer: Any, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_tokens, "BATCH_ROWS", 7)
    assert prepare(tokenizer, rows, Tokenization(256)).rows == [tokenize(tokenizer, row) for row in rows]


def test_cache_is_reused_after_a_restart(tokenizer: Any, rows: Rows, tmp_path: Path, batch_sizes: list[int]) -> None:
    first = prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(LENGTH))
    assert batch_sizes == [60]
    again = prepare_cached(trainable_model.make_tokenizer(), rows, tmp_path / "tokens", Tokenization(LENGTH))
    assert batch_sizes == [60] and list(again.rows) == list(first.rows)
    for settings in (Tokenization(LENGTH, "all"), Tokenization(LENGTH, keep="keep_end")):
        prepare_cached(tokenizer, rows, tmp_path / "tokens", settings)
    assert len(batch_sizes) == 3
    tokenizer.chat_template += "{# another, that writes the same #}"
    prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(LENGTH))
    assert len(batch_sizes) == 4
    (tmp_path / "tokens" / "facts.json").unlink()  # as after a kill
    prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(LENGTH))
    assert len(batch_sizes) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.parquet", "tokens"]


def test_other_rows_are_tokenized_again(tokenizer: Any, rows: Rows, tmp_path: Path, batch_sizes: list[int]) -> None:
    prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(LENGTH))
    trainable_model.write_rows(rows.file, trainable_model.chat_rows(61))
    assert len(prepare_cached(tokenizer, read_messages(rows.file), tmp_path / "tokens", Tokenization(256)).rows) == 61
    assert batch_sizes == [60, 61]


def test_unusable_rows_leave_no_cache(tokenizer: Any, rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="max_length=2 truncates all assistant tokens"):
        prepare_cached(tokenizer, rows, tmp_path / "tokens", Tokenization(2))
    assert not (tmp_path / "tokens").exists()


def test_text_has_loss_on_its_end_token(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    row = tokenize(tokenizer, [{"role": "text", "content": "Number 4 is blue."}])
    assert tokenizer.decode(row.input_ids) == "Number 4 is blue.<|im_end|>"
    assert row.labels == row.input_ids


def test_resumed_training_does_not_tokenize_again(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, batch_sizes: list[int]
) -> None:
    tiny, work = small_model(tmp_path_factory.getbasetemp()), with_rows(tmp_path / "work", 20)
    quick(work, tiny, max_steps=2)
    assert batch_sizes == [20]
    shutil.rmtree(work / "checkpoints")
    quick(work, tiny, max_steps=2)
    assert batch_sizes == [20]
    assert isinstance(TokenRows(work / "tokens" / "train" / "tokens.arrow"), TokenRows)
