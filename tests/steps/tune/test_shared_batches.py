"""Several ranks together see in each step the rows that one process would, each row once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.chat_tokens import IGNORED
from steps.tune import shared_batches
from steps.tune.shared_batches import ACCUMULATION, BATCH_SIZE

counts = st.integers(1, 5)


def sharded_steps(
    rows: int, batch_size: int, accumulation: int, processes: int, global_batch_size: int, epoch: int = 0
) -> list[list[int]]:
    """Return the rows of each step over all ranks, without blank rows."""
    import torch
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, RandomSampler

    class Rows(list[Any]):
        column_names = ("input_ids", "labels")

    callbacks: list[Any] = []
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            world_size=processes,
            process_index=0,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            dataloader_drop_last=False,
            seed=7,
            data_seed=None,
        ),
        train_dataset=Rows({"input_ids": [n] * 3, "labels": [n] * 3} for n in range(rows)),
        add_callback=callbacks.append,
        _get_train_sampler=lambda *_: RandomSampler(range(rows)),
    )
    state = torch.random.get_rng_state()
    shared_batches.shard_sampler(trainer, global_batch_size, rows)
    torch.random.set_rng_state(state)

    def batches_of(rank: int) -> list[list[int]]:
        callbacks[0].on_epoch_begin(trainer.args, SimpleNamespace(epoch=epoch), None)
        batches = BatchSampler(trainer._get_train_sampler(), batch_size, drop_last=False)
        return list(BatchSamplerShard(batches, processes, rank))

    shards = [batches_of(rank) for rank in range(processes)]
    arguments = {BATCH_SIZE: batch_size, ACCUMULATION: accumulation}
    assert {sum(map(len, shard)) for shard in shards} == {
        shared_batches.samples_per_rank(rows, arguments, global_batch_size, processes)
    }
    assert all(len(batch) == batch_size for shard in shards for batch in shard)
    blank = trainer.train_dataset[rows]
    assert set(blank["labels"]) == {IGNORED}
    return [
        sorted(n for shard in shards for batch in shard[start : start + accumulation] for n in batch if n < rows)
        for start in range(0, len(shards[0]), accumulation)
    ]


def single_process_steps(rows: int, global_batch_size: int, epoch: int = 0) -> list[list[int]]:
    """Return the rows of each step in the library's order for one process."""
    from accelerate.data_loader import SeedableRandomSampler

    order = SeedableRandomSampler(range(rows), data_seed=7)
    order.set_epoch(epoch)
    indices = list(order)
    return [sorted(indices[start : start + global_batch_size]) for start in range(0, rows, global_batch_size)]


@settings(max_examples=60)
@given(st.integers(1, 60), counts, counts, st.integers(2, 5), st.integers(0, 3))
def test_each_step_has_the_rows_of_one_process(
    rows: int, batch_size: int, accumulation: int, processes: int, epoch: int
) -> None:
    arguments = {BATCH_SIZE: batch_size, ACCUMULATION: accumulation}
    global_batch_size = shared_batches.compute_global_batch_size(arguments, processes)
    steps = sharded_steps(rows, batch_size, accumulation, processes, global_batch_size, epoch)
    assert steps == single_process_steps(rows, global_batch_size, epoch)


@settings(max_examples=60)
@given(st.integers(1, 60), counts, counts, counts, st.integers(2, 5))
def test_each_step_is_the_same_after_a_change_of_the_world_size(
    rows: int, batch_size: int, accumulation: int, before: int, processes: int
) -> None:
    arguments = {BATCH_SIZE: batch_size, ACCUMULATION: accumulation}
    global_batch_size = shared_batches.compute_global_batch_size(arguments, before)
    split = shared_batches.split_batch(arguments, global_batch_size, processes)
    assert split[BATCH_SIZE] <= batch_size
    steps = sharded_steps(rows, split[BATCH_SIZE], split[ACCUMULATION], processes, global_batch_size)
    assert steps == single_process_steps(rows, global_batch_size)
    assert shared_batches.split_batch(split, global_batch_size, processes) == split


def test_split_batch_is_unchanged_for_the_same_world_size() -> None:
    arguments = {BATCH_SIZE: 3, ACCUMULATION: 4, "optim": "sgd"}
    global_batch_size = shared_batches.compute_global_batch_size(arguments, 2)
    assert shared_batches.split_batch(arguments, global_batch_size, 2) == arguments
    assert shared_batches.split_batch({BATCH_SIZE: 4}, 16, 1) == {BATCH_SIZE: 4, ACCUMULATION: 4}
    assert shared_batches.split_batch({BATCH_SIZE: 4}, 16, 3) == {BATCH_SIZE: 3, ACCUMULATION: 2}


def test_blank_rows_have_no_loss_but_gradients(tiny: Path) -> None:
    """A rank with blank rows only must have gradients too, since the others wait for them."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from steps.models.model import load_base

    model = load_base(tiny, "lora", {}, "cpu", dtype="float32")
    blank = {"input_ids": [5, 6], "labels": [IGNORED] * 2}
    row = {"input_ids": [5, 6, 7, 8], "labels": [5, 6, 7, 8]}
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    count = collate([row])["labels"][..., 1:].numel()
    alone, with_blank, blanks = (
        model(**collate(rows), use_cache=False, num_items_in_batch=count).loss
        for rows in ([row], [row, blank], [blank, blank])
    )
    assert with_blank.item() == pytest.approx(alone.item(), abs=1e-6)
    assert blanks.item() == 0
    blanks.backward()
    assert all(part.grad is not None and not part.grad.any() for part in model.parameters())
