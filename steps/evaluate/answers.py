"""Greedy answers of a model to questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.data.chat_tokens import Message, render

BATCH_SIZE = 8
"""Questions per batch. Up to this many questions are answered one by one, as a server does: padding in a batch changes
rounding, and with it some answers."""


def answer(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[str]:
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
    answers: list[str] = []
    batch_size = BATCH_SIZE if len(questions) > BATCH_SIZE else 1
    for start in range(0, len(questions), batch_size):
        answers += _answer_batch(model, tokenizer, questions[start : start + batch_size], ends, max_new_tokens)
    return answers


def _answer_batch(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[str]:
    _, tokens = generate(model, tokenizer, questions, ends, max_new_tokens)
    return [text.strip() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def generate(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> tuple[Any, Any]:
    """Return the token ids of the prompts and of the greedy answers, each of shape (questions, tokens), padded."""
    import torch

    texts = [render(tokenizer, question, prompt=True) for question in questions]
    # Left padding aligns the beginnings of all answers.
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    inputs = inputs.to(model.device)
    eos = model.generation_config.eos_token_id
    eos = eos if isinstance(eos, list) else [eos]
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # Some models ship sampling settings, which transformers warns about in greedy search.
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted({*eos, *ends} - {None}),
            pad_token_id=tokenizer.pad_token_id,
        )
    return inputs["input_ids"], tokens[:, inputs["input_ids"].shape[1] :]
