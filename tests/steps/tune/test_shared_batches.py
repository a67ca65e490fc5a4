"""Several processes see, step for step, the rows that one process would, each row once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuning import small_model

from steps.data.chat_tokens import IGNORED
from steps.tune import shared_batches
from steps.tune.shared_batches import ACCUMULATION, BATCH_SIZE

counts = st.integers(1, 5)


def steps_of(
    rows: int, at_once: int, times: int, processes: int, global_batch_size: int, epoch: int = 0
) -> list[list[int]]:
    """What the processes see together in each step: numbers of rows, without blank ones."""
    import torch
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, RandomSampler

    class Rows(list[Any]):
        column_names = ("input_ids", "labels")

    watches: list[Any] = []
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            world_size=processes,
            process_index=0,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=times,
            dataloader_drop_last=False,
            seed=7,
            data_seed=None,
        ),
        train_dataset=Rows({"input_ids": [n] * 3, "labels": [n] * 3} for n in range(rows)),
        add_callback=watches.append,
        _get_train_sampler=lambda *_: RandomSampler(range(rows)),
    )
    state = torch.random.get_rng_state()
    shared_batches.shard_sampler(trainer, global_batch_size, rows)
    torch.random.set_rng_state(state)

    def share_of(rank: int) -> list[list[int]]:
        watches[0].on_epoch_begin(trainer.args, SimpleNamespace(epoch=epoch), None)
        batches = BatchSampler(trainer._get_train_sampler(), at_once, drop_last=False)
        return list(BatchSamplerShard(batches, processes, rank))

    shares = [share_of(rank) for rank in range(processes)]
    arguments = {BATCH_SIZE: at_once, ACCUMULATION: times}
    assert {sum(map(len, share)) for share in shares} == {
        shared_batches.samples_per_rank(rows, arguments, global_batch_size, processes)
    }
    assert all(len(batch) == at_once for share in shares for batch in share)
    blank = trainer.train_dataset[rows]
    assert set(blank["labels"]) == {IGNORED}
    return [
        sorted(n for share in shares for batch in share[first : first + times] for n in batch if n < rows)
        for first in range(0, len(shares[0]), times)
    ]


def alone(rows: int, global_batch_size: int, epoch: int = 0) -> list[list[int]]:
    """The library's own order of one process."""
    from accelerate.data_loader import SeedableRandomSampler

    order = SeedableRandomSampler(range(rows), data_seed=7)
    order.set_epoch(epoch)
    numbers = list(order)
    return [sorted(numbers[first : first + global_batch_size]) for first in range(0, rows, global_batch_size)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), counts, counts, st.integers(2, 5), st.integers(0, 3))
def test_each_step_has_the_rows_of_one_process(
    rows: int, at_once: int, times: int, processes: int, epoch: int
) -> None:
    global_batch_size = shared_batches.compute_global_batch_size({BATCH_SIZE: at_once, ACCUMULATION: times}, processes)
    assert steps_of(rows, at_once, times, processes, global_batch_size, epoch) == alone(rows, global_batch_size, epoch)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), counts, counts, counts, st.integers(2, 5))
def test_and_so_it_has_with_another_number_of_processes(
    rows: int, at_once: int, times: int, before: int, processes: int
) -> None:
    arguments = {BATCH_SIZE: at_once, ACCUMULATION: times}
    global_batch_size = shared_batches.compute_global_batch_size(arguments, before)
    now = shared_batches.split_batch(arguments, global_batch_size, processes)
    assert now[BATCH_SIZE] <= at_once
    assert steps_of(rows, now[BATCH_SIZE], now[ACCUMULATION], processes, global_batch_size) == alone(
        rows, global_batch_size
    )
    assert shared_batches.split_batch(now, global_batch_size, processes) == now


def test_the_settings_stay_where_the_processes_do() -> None:
    arguments = {BATCH_SIZE: 3, ACCUMULATION: 4, "optim": "sgd"}
    assert (
        shared_batches.split_batch(arguments, shared_batches.compute_global_batch_size(arguments, 2), 2) == arguments
    )
    assert shared_batches.split_batch({BATCH_SIZE: 4}, 16, 1) == {BATCH_SIZE: 4, ACCUMULATION: 4}
    assert shared_batches.split_batch({BATCH_SIZE: 4}, 16, 3) == {BATCH_SIZE: 3, ACCUMULATION: 2}


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.getbasetemp())


def test_nothing_is_learned_from_blank_rows_and_the_gradient_is_whole(tiny: Path) -> None:
    """A process whose rows are all blank must have gradients too: the others wait for them."""
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
