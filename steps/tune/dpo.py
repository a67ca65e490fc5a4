"""Learning from pairs of answers (DPO, arXiv 2305.18290): the chosen one is to become likelier than the rejected one.

The model to stay near is the base, which is the model with its adapter switched off: no second copy is loaded.
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
    "completion_only_loss": "the answers are what is compared",
    "assistant_only_loss": "the answers are what is compared",
    "loss_type": "it names the losses of objective sft",
    "label_smoothing_factor": "it is of the loss of objective sft",
    "eos_token": "the chat template ends the answers",
}
"""Keys of ``training_arguments`` that mean something to ``trl.SFTTrainer`` only."""
KEEP_START = "an answer is cut at its end, so that both answers keep the same prompt"


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, in tokens."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def length(self) -> int:
        """Tokens of the longer of the two conversations."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


def check_data(objective: str, pairs: bool) -> None:
    """Hold an objective to the data, which may have ``pairs`` of answers.

    Raises:
        BadInput: dpo without pairs.
    """
    if objective == "dpo" and not pairs:
        what = "objective dpo learns from pairs of answers, and the data has no rejected ones"
        raise BadInput(what, "give data with the columns chosen and rejected, or write objective: sft")
    if objective == "sft" and pairs:
        print("the data has pairs of answers, and objective sft learns the chosen ones alone", flush=True)


def unsupported_keys(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Each key of ``training_arguments`` that can't be honoured with objective dpo, and why."""
    found = {key: f"has no effect with objective dpo: {why}" for key, why in SFT_ONLY.items() if arguments.get(key)}
    if arguments.get("truncation_mode") == "keep_end":
        found["truncation_mode"] = f"must be keep_start with objective dpo: {KEEP_START}"
    return found


def pairs(
    tokenizer: Any, rows: Sequence[Sequence[Message]], rejected: Sequence[Sequence[Message]], max_length: int
) -> list[Pair]:
    """Tokenize conversations and the answer that was rejected in each; pairs without room for an answer are left out.

    Raises:
        BadInput: the chat template refuses a row, or no pair is left.
    """
    found = [
        _pair(tokenizer, row, other, number) for number, (row, other) in enumerate(zip(rows, rejected, strict=True), 1)
    ]
    kept = [_cut(pair, max_length) for pair in found if len(pair.prompt_ids) < max_length]
    kept = [pair for pair in kept if pair.chosen_ids != pair.rejected_ids]
    longest = max((pair.length for pair in found), default=0)
    if not kept:
        what = f"max_length {max_length} leaves no two different answers in any of the {len(found)} pairs"
        raise BadInput(what, f"raise max_length; the longest pair has {longest} tokens")
    cut = sum(pair.length > max_length for pair in found)
    if cut or len(kept) < len(found):
        left_out = f", {len(found) - len(kept)} left out, for their answers are the same then" if cut else ""
        print(
            f"of {len(found)} pairs {cut} are longer than {max_length} tokens (max_length; the longest has {longest})"
            f"{left_out}",
            flush=True,
        )
    return kept


def dataset(found: Sequence[Pair]) -> Any:
    """Pairs as ``trl.DPOTrainer`` takes them."""
    from datasets import Dataset

    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return Dataset.from_dict({name: [getattr(pair, name) for pair in found] for name in names})


def trainer(**given: Any) -> Any:
    """``trl.DPOTrainer`` on tokens. Its own way to them gives what stands between turns to the answers."""
    from trl import DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

    return OnTokens(**given)


def _pair(tokenizer: Any, row: Sequence[Message], rejected: Sequence[Message], number: int) -> Pair:
    chosen = tokenize(tokenizer, row, learned="last", number=number)
    other = tokenize(tokenizer, [*row[:-1], *rejected], learned="last", number=number)
    # Tokens may join the end of the prompt and the beginning of one answer.
    same = next((at for at, (a, b) in enumerate(zip(chosen.input_ids, other.input_ids, strict=False)) if a != b), None)
    begin = min(place for place in (_span(chosen)[0], _span(other)[0], same) if place is not None)
    return Pair(
        prompt_ids=chosen.input_ids[:begin],
        chosen_ids=chosen.input_ids[begin : _span(chosen)[1]],
        rejected_ids=other.input_ids[begin : _span(other)[1]],
    )


def _span(tokens: ChatTokens) -> tuple[int, int]:
    """Where the answer begins and ends."""
    learned = [place for place, label in enumerate(tokens.labels) if label != IGNORED]
    return (learned[0], learned[-1] + 1) if learned else (len(tokens.labels), len(tokens.labels))


def _cut(pair: Pair, length: int) -> Pair:
    room = length - len(pair.prompt_ids)
    return Pair(pair.prompt_ids, pair.chosen_ids[:room], pair.rejected_ids[:room])
