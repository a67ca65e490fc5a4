"""How rows become batches. The loss is the same in each way; what differs is how much of the work is padding.

``padding_free``: the rows of a batch stand one after the other in one sequence, and attention ends at each row's end
(flash attention has kernels for it; else row_attention.py, where the model suits). ``packing``: the same, with
as many rows as fit in ``max_length``. Otherwise the rows of a batch are of about the same length, and the batches come
in an order that depends on seed and epoch alone, so that a run that was killed goes on with those it would have had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from steps.data.chat_tokens import ChatTokens
from steps.data.token_cache import TokenRows

GROUPED = "group_by_length"


def defaults(arguments: Mapping[str, Any], *, padding_free: bool) -> dict[str, Any]:
    """Arguments of ``trl.SFTConfig`` for what wastes least, where the user chose nothing."""
    if arguments.get("packing") or arguments.get("padding_free") or arguments.get("train_sampling_strategy"):
        return {}
    return {"padding_free": True} if padding_free else {"train_sampling_strategy": GROUPED}


def is_padding_free(arguments: Any) -> bool:
    """Whether the rows of a batch stand in one sequence, by the trainer's arguments (as ``SFTTrainer`` decides)."""
    packed = getattr(arguments, "packing", False) and arguments.packing_strategy.startswith("bfd")
    return bool(packed or getattr(arguments, "padding_free", False))


def dataset(rows: Sequence[ChatTokens], arguments: Mapping[str, Any]) -> Any:
    """Rows as the trainer takes them: ``input_ids`` and ``labels``, and ``seq_lengths`` where they are packed."""
    from datasets import Dataset

    if isinstance(rows, TokenRows):
        whole = rows.dataset()
    else:
        whole = Dataset.from_dict({name: [getattr(row, name) for row in rows] for name in ("input_ids", "labels")})
    if not arguments.get("packing"):
        return whole
    from trl import pack_dataset

    return pack_dataset(whole, arguments["max_length"], arguments.get("packing_strategy", "bfd"))


def lengths(dataset: Any) -> list[int]:
    """Tokens of each row; of pairs (``preferences.dataset``), with the longer answer."""
    if "input_ids" in dataset.column_names:
        return [len(row) for row in dataset["input_ids"]]
    answers = zip(dataset["chosen_ids"], dataset["rejected_ids"], strict=True)
    return [len(prompt) + max(map(len, pair)) for prompt, pair in zip(dataset["prompt_ids"], answers, strict=True)]


def group_by_length(trainer: Any, lengths: Sequence[int]) -> None:
    """Give a trainer batches of like lengths that are the same again when a run is resumed.

    The library's own sampler draws from the process's random numbers, which are others after a resume, and gives long
    rows before short ones, fifty batches at a time: a short training would end on what it saw of one length. Here the
    longest batch comes first, so that memory runs short at once or not at all, and the others in any order.
    """
    import torch
    from transformers.trainer_pt_utils import LengthGroupedSampler

    class Sampler(LengthGroupedSampler):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Any:
            self.generator = torch.Generator().manual_seed(trainer.args.seed + self.epoch)
            numbers, size = list(super().__iter__()), self.batch_size
            whole = len(numbers) - len(numbers) % size
            batches = [numbers[start : start + size] for start in range(0, whole, size)]
            first, later = batches[:1], batches[1:]
            order = torch.randperm(len(later), generator=self.generator).tolist()
            return chain(*first, *(later[place] for place in order), numbers[whole:])

    arguments = trainer.args
    batch = arguments.train_batch_size * arguments.gradient_accumulation_steps
    trainer._get_train_sampler = lambda *_: Sampler(batch, lengths=list(lengths))
