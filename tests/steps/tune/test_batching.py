"""All batching variants compute the same loss, and grouped batches are reproducible after a resume."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trainable_model
from tuning import losses, quick, with_rows

from steps.data.chat_tokens import ChatTokens, prepare
from steps.data.tokenization import Tokenization
from steps.models.model import load_base, load_tokenizer
from steps.tune import batching


def mixed_rows(tokenizer: Any) -> list[ChatTokens]:
    """Return rows of very different lengths."""
    turns = trainable_model.chat_rows(12)
    conversations = [list(chain(*turns[:count])) for count in (1, 4, 2, 3, 1, 2)]
    return prepare(tokenizer, conversations, Tokenization(256)).rows


@pytest.mark.parametrize("arguments", [{"padding_free": True}, {"packing": True, "max_length": 256}])
def test_rows_without_padding_have_the_loss_of_padded_rows(tiny: Path, arguments: dict[str, Any]) -> None:
    """The loss would differ if a row attended to another, or continued its positions."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model, tokenizer = load_base(tiny, "lora", {}, "cpu", dtype="float32"), load_tokenizer(tiny)
    rows = mixed_rows(tokenizer)
    padded = DataCollatorForLanguageModeling(tokenizer.pad_token_id)(list(batching.dataset(rows, {})))
    dense = DataCollatorForLanguageModeling(tokenizer.pad_token_id, padding_free=True)(
        list(batching.dataset(rows, arguments))
    )
    assert dense["input_ids"].numel() == sum(len(row.input_ids) for row in rows) < padded["input_ids"].numel()
    expected, loss = model(**padded, use_cache=False).loss.item(), model(**dense, use_cache=False).loss.item()
    assert loss == pytest.approx(expected, abs=1e-5)


def test_packed_rows_fill_the_length(tiny: Path) -> None:
    rows = mixed_rows(load_tokenizer(tiny))
    packed = batching.dataset(rows, {"packing": True, "max_length": 256})
    assert len(packed) < len(rows)
    assert sum(map(len, packed["seq_lengths"])) == len(rows)
    for row in packed:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) <= 256


def grouped(lengths: list[int]) -> Any:
    trainer = SimpleNamespace(
        args=SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=1, seed=7),
    )
    batching.group_by_length(trainer, lengths)
    return trainer._get_train_sampler(None)


def test_groups_have_similar_lengths_and_depend_on_the_epoch_only() -> None:
    lengths = [1 + (number * 37) % 200 for number in range(200)]
    sampler, again = grouped(lengths), grouped(lengths)
    first, second = list(sampler), (sampler.set_epoch(1), list(sampler))[1]
    assert sorted(first) == list(range(200))
    assert first != second
    again.set_epoch(1)
    assert list(again) == second
    again.set_epoch(0)
    assert list(again) == first
    spread = [max(part) - min(part) for part in ([lengths[n] for n in first[i : i + 4]] for i in range(0, 200, 4))]
    assert sum(spread) / len(spread) < 20


def test_the_longest_batch_is_first_and_the_others_are_shuffled() -> None:
    lengths = [1 + (number * 37) % 200 for number in range(203)]
    order = list(grouped(lengths))
    assert sorted(order) == list(range(203))
    batches = [sum(lengths[number] for number in order[at : at + 4]) for at in range(0, 200, 4)]
    assert batches[0] == max(batches)
    early, late = sum(batches[:25]), sum(batches[25:])
    assert 0.75 < early / late < 1.33  # 3 with the library's order


@pytest.mark.parametrize(("rows", "batch_size", "tokens"), [(4, 8, 100), (1000, 8, 200), (0, 8, 0)])
def test_the_tokens_of_a_batch_are_those_of_its_rows(rows: int, batch_size: int, tokens: int) -> None:
    dataset = batching.dataset([ChatTokens([2] * 25, [2] * 25)] * rows, {})
    assert batching.tokens_per_batch(dataset, {"per_device_train_batch_size": batch_size}) == tokens


def test_defaults_waste_least_and_respect_the_user() -> None:
    assert batching.defaults({}, padding_free=True) == {"padding_free": True}
    assert batching.defaults({}, padding_free=False) == {"train_sampling_strategy": "group_by_length"}
    for chosen in ({"packing": True}, {"padding_free": True}, {"train_sampling_strategy": "random"}):
        assert batching.defaults(chosen, padding_free=True) == {}


@pytest.mark.parametrize("chosen", [{"packing": True}, {"padding_free": True}, {"train_sampling_strategy": "random"}])
def test_the_training_uses_the_chosen_batching(tiny: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    work = with_rows(tmp_path / "work")
    quick(work, tiny, training_arguments=chosen, max_steps=3)
    assert len(losses(work)) == 3
    tokens = [json.loads(line)["tokens"] for line in (work / "report" / "train.jsonl").read_text().splitlines()]
    assert all(tokens)
