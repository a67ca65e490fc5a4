"""What a model answers, always taking the likeliest token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.data.chat_tokens import Message, render

BATCH_SIZE = 8
"""Questions answered together, if there are more than these. So many are answered one by one, as a server does: among
others each is padded, which rounds otherwise, and some answers take another turn."""


def answer(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[str]:
    """Answer each of ``questions``, messages that end with the user's. ``ends`` are tokens that end an answer.

    Raises:
        BadInput: the chat template refuses a question.
    """
    answers: list[str] = []
    at_once = BATCH_SIZE if len(questions) > BATCH_SIZE else 1
    for first in range(0, len(questions), at_once):
        answers += _batch(model, tokenizer, questions[first : first + at_once], ends, max_new_tokens)
    return answers


def _batch(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int], max_new_tokens: int
) -> list[str]:
    import torch

    texts = [render(tokenizer, question, prompt=True) for question in questions]
    # Padded on the left, so that all answers begin at the same place.
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    inputs = inputs.to(model.device)
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    with torch.inference_mode():
        tokens = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            # Some models come with settings for sampling, which do not belong to the likeliest answer.
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted({*own, *ends} - {None}),
            pad_token_id=tokenizer.pad_token_id,
        )
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
