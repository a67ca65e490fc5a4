"""Direct preference optimization (DPO, arXiv 2305.18290) on pairs of a chosen and a rejected answer.

The reference model is the base, computed by turning the adapter off: no second copy is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.data.chat_tokens import IGNORED, ChatTokens, Message, tokenize
from steps.runtime.errors import BadInput

SFT_ONLY: Mapping[str, str] = {
    "packing": "pairs are not packed",
    "packing_strategy": "pairs are not packed",
    "padding_free": "trl pads pairs",
    "completion_only_loss": "the loss compares the answers only",
    "assistant_only_loss": "the loss compares the answers only",
    "loss_type": "it selects a loss of objective sft",
    "label_smoothing_factor": "it applies to the loss of objective sft",
    "eos_token": "the chat template ends the answers",
}
"""Keys of ``training_arguments`` that only ``trl.SFTTrainer`` uses, and why."""
KEEP_START = "answers are truncated at the end, so that both have the same prompt"


@dataclass(frozen=True)
class Pair:
    """Token ids of a prompt and two answers."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Number of tokens of the longer conversation."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def check_data(objective: str, pairs: bool) -> None:
    """Check the objective against data with or without ``pairs`` of answers.

    Raises:
        BadInput: The objective is dpo and the data has no pairs, or sft and it has pairs.
    """
    if objective == "dpo" and not pairs:
        message = "objective dpo needs pairs of answers, but the data has no rejected answers"
        raise BadInput(message, "use data with the columns chosen and rejected, or set objective: sft")
    if objective == "sft" and pairs:
        message = "the data has pairs of answers (chosen and rejected), which objective sft does not learn from"
        fix = "set pipeline.tune.objective: dpo, or name what to learn, pipeline.data.columns: {messages: chosen}"
        raise BadInput(message, fix)


def unsupported_keys(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return each key of ``training_arguments`` that is not supported with objective dpo, and why."""
    reasons = {
        key: f"has no effect with objective dpo: {reason}" for key, reason in SFT_ONLY.items() if arguments.get(key)
    }
    if arguments.get("truncation_mode") == "keep_end":
        reasons["truncation_mode"] = f"must be keep_start with objective dpo: {KEEP_START}"
    return reasons


def pairs(
    tokenizer: Any, rows: Sequence[Sequence[Message]], rejected: Sequence[Sequence[Message]], max_length: int
) -> list[Pair]:
    """Tokenize conversations and their rejected answers; skip pairs whose answers are equal after truncation.

    Raises:
        BadInput: The chat template rejects a row, or no pair remains.
    """
    tokenized = [
        _tokenize_pair(tokenizer, row, other, number)
        for number, (row, other) in enumerate(zip(rows, rejected, strict=True), 1)
    ]
    usable = [_truncate(pair, max_length) for pair in tokenized if len(pair.prompt_ids) < max_length]
    usable = [pair for pair in usable if pair.chosen_ids != pair.rejected_ids]
    longest = max((pair.length for pair in tokenized), default=0)
    if not usable:
        message = f"max_length={max_length} leaves no two different answers in any of the {len(tokenized)} pairs"
        raise BadInput(message, f"increase max_length (longest pair: {longest})")
    truncated = sum(pair.length > max_length for pair in tokenized)
    skipped = len(tokenized) - len(usable)
    if truncated or skipped:
        print(
            f"warning: max_length={max_length} truncates {truncated} of {len(tokenized)} pairs (longest: {longest}); "
            f"skipping {skipped} with equal answers",
            flush=True,
        )
    return usable


def dataset(pairs: Sequence[Pair]) -> Any:
    """Return the dataset for ``trl.DPOTrainer``."""
    from datasets import Dataset

    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [getattr(pair, name) for pair in pairs] for name in names})


def trainer(**arguments: Any) -> Any:
    """Return a ``trl.DPOTrainer`` for tokenized pairs; its own tokenization adds text between turns to the answers."""
    from trl import DPOTrainer

    class TokenTrainer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return TokenTrainer(**arguments)


def _tokenize_pair(tokenizer: Any, row: Sequence[Message], rejected: Sequence[Message], number: int) -> Pair:
    answers = (row[-1], rejected[-1])
    if any(message.get("train") for message in row[:-1]) or any(answer.get("train") is False for answer in answers):
        message = f"row {number}: objective dpo learns the last answer only, which contradicts the weights of messages"
        raise BadInput(message, "remove weight and train, or set objective: sft")
    chosen = tokenize(tokenizer, row, learned="last", number=number)
    other = tokenize(tokenizer, [*row[:-1], *rejected], learned="last", number=number)
    # A token can span the end of the prompt and the beginning of an answer.
    ids = zip(chosen.input_ids, other.input_ids, strict=False)
    difference = next((idx for idx, (first, second) in enumerate(ids) if first != second), None)
    start = min(idx for idx in (_span(chosen)[0], _span(other)[0], difference) if idx is not None)
    return Pair(
        prompt_ids=chosen.input_ids[:start],
        chosen_ids=chosen.input_ids[start : _span(chosen)[1]],
        rejected_ids=other.input_ids[start : _span(other)[1]],
    )


def _span(tokens: ChatTokens) -> tuple[int, int]:
    """Return start and end of the answer."""
    learned = [idx for idx, label in enumerate(tokens.labels) if label != IGNORED]
    return (learned[0], learned[-1] + 1) if learned else (len(tokens.labels), len(tokens.labels))


def _truncate(pair: Pair, length: int) -> Pair:
    available = length - len(pair.prompt_ids)
    return Pair(pair.prompt_ids, pair.chosen_ids[:available], pair.rejected_ids[:available])
