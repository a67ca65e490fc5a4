"""Greedy answers of a model to questions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from steps.data.chat_tokens import Message, render

BATCH_SIZE = 8
"""Questions per batch. Up to this many questions are answered one by one, as a server does: padding in a batch changes
rounding, and with it some answers."""


@dataclass(frozen=True)
class Answer:
    """A model's answer to a question."""

    text: str
    prompt: list[int]
    """Ids of the question's tokens, in the chat template."""
    tokens: list[int]
    """Ids of the answer's tokens, including the one that ends it."""


def answer_questions(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[Answer]:
    """Return the greedy answer to each question.

    Args:
        model: The model that answers.
        tokenizer: Its tokenizer, with a chat template.
        questions: Messages, of which the last is the user's.
        ends: Ids of tokens that end an answer, besides the model's eos tokens.
        max_new_tokens: Maximum length of an answer.

    Raises:
        BadInput: The chat template rejects a question.
    """
    answers: list[Answer] = []
    batch_size = BATCH_SIZE if len(questions) > BATCH_SIZE else 1
    for start in range(0, len(questions), batch_size):
        answers += _answer_batch(model, tokenizer, questions[start : start + batch_size], ends, max_new_tokens)
    return answers


def _answer_batch(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[Answer]:
    import torch

    texts = [render(tokenizer, question, prompt=True) for question in questions]
    # Left padding aligns the beginnings of all answers.
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    inputs = inputs.to(model.device)
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    stops = {*eos, *ends} - {None}
    with torch.inference_mode():
        generated = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # Some models ship sampling settings, which transformers warns about in greedy search.
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted(stops),
            pad_token_id=tokenizer.pad_token_id,
        )
    tokens = generated[:, inputs["input_ids"].shape[1] :]
    answers = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    prompts = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return [
        Answer(text.strip(), prompt.tolist(), _up_to_end(ids, stops))
        for text, prompt, ids in zip(answers, prompts, tokens.tolist(), strict=True)
    ]


def _up_to_end(tokens: list[int], stops: Collection[int]) -> list[int]:
    """Return tokens without the padding after the end of a shorter answer of a batch."""
    end = next((idx for idx, token in enumerate(tokens) if token in stops), len(tokens))
    return tokens[: end + 1]
