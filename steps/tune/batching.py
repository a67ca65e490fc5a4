"""Batching of rows. All variants have the same loss; they differ in the amount of padding.

``padding_free``: the rows of a batch are concatenated into one sequence, and attention does not cross rows (with flash
attention, or packed_attention.py for supported models). ``packing``: the same, with sequences filled up to
``max_length``. Otherwise the rows of a batch have similar lengths, and the order of batches depends on seed and epoch
only, so a resumed run sees the batches of an undisturbed one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from steps.data.chat_tokens import ChatTokens
from steps.data.token_cache import TokenRows

GROUPED = "group_by_length"
SAMPLED_ROWS = 256
"""Rows that the mean length is computed from."""


def defaults(arguments: Mapping[str, Any], *, padding_free: bool) -> dict[str, Any]:
    """Return arguments of ``trl.SFTConfig`` that waste least on padding; empty if the user chose a variant."""
    if arguments.get("packing") or arguments.get("padding_free") or arguments.get("train_sampling_strategy"):
        return {}
    return {"padding_free": True} if padding_free else {"train_sampling_strategy": GROUPED}


def is_padding_free(arguments: Any) -> bool:
    """Return True if the rows of a batch are concatenated into one sequence (same condition as ``SFTTrainer``)."""
    packed = getattr(arguments, "packing", False) and arguments.packing_strategy.startswith("bfd")
    return bool(packed or getattr(arguments, "padding_free", False))


def dataset(rows: Sequence[ChatTokens], arguments: Mapping[str, Any]) -> Any:
    """Return the trainer's dataset, with ``input_ids`` and ``labels``, and ``seq_lengths`` if packed."""
    from datasets import Dataset

    if isinstance(rows, TokenRows):
        unpacked = rows.dataset()
    else:
        unpacked = Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in ("input_ids", "labels")})
    if not arguments.get("packing"):
        return unpacked
    from trl import pack_dataset

    return pack_dataset(unpacked, arguments["max_length"], arguments.get("packing_strategy", "bfd"))


def lengths(dataset: Any) -> list[int]:
    """Return the number of tokens of each row; of a pair (``dpo.dataset``), with the longer answer."""
    if "input_ids" in dataset.column_names:
        return [len(row) for row in dataset["input_ids"]]
    answers = zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    return [len(prompt) + max(map(len, pair)) for prompt, pair in zip(dataset["prompt_ids"], answers, strict=True)]


def tokens_per_batch(dataset: Any, arguments: Mapping[str, Any]) -> int:
    """Return the mean tokens of a device's batch, without padding, from some rows of the dataset."""
    counts = lengths(dataset.select(range(0, len(dataset), len(dataset) // SAMPLED_ROWS + 1)))
    rows = min(int(arguments["per_device_train_batch_size"]), len(dataset))
    return round(rows * sum(counts) / max(len(counts), 1))


def group_by_length(trainer: Any, lengths: Sequence[int]) -> None:
    """Make a trainer use batches of similar lengths, reproducible when a run is resumed.

    The library's sampler uses the process's random state, which differs after a resume, and sorts each 50 batches from
    long to short, so a short training would end with short rows only. Here the longest batch is first, so that memory
    runs out immediately or never, and the others are shuffled.
    """
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class Sampler(LengthGroupedSampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Any:
            self.generator = torch.Generator().manual_seed(trainer.args.seed + self.epoch)
            indices, size = list(super().__iter__()), self.batch_size
            full = len(indices) - len(indices) % size
            batches = [indices[start : start + size] for start in range(0, full, size)]
            first, rest = batches[:1], batches[1:]
            order = torch.randperm(len(rest), generator=self.generator).tolist()
            return chain(*first, *(rest[idx] for idx in order), indices[full:])

    arguments = trainer.args
    batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps
    trainer._get_train_sampler = lambda *_: Sampler(batch_size, lengths=list(lengths))
