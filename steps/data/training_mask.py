"""Masks of assistant turns that a training template marks with ``{% generation %}``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from steps.data.chat_rendering import render


def trim(tokenizer: Any, ids: Sequence[int], mask: Sequence[int]) -> list[int]:
    """Return the mask without what a server puts before an answer, and without white space after its end token.

    Some templates mark the header of the answer, too; the model never generates it.
    """
    prompt, special = _generation_prompt(tokenizer), set(tokenizer.get_added_vocab().values())
    trimmed = [0] * len(ids)
    for marked, group in groupby(range(len(ids)), key=lambda idx: bool(mask[idx])):
        if not marked:
            continue
        run = list(group)
        start, end = run[0], run[-1] + 1
        if prompt and ids[start] == prompt[0]:
            start += next((n for n, idx in enumerate(run) if n == len(prompt) or ids[idx] != prompt[n]), len(run))
        while end > start and ids[end - 1] not in special and not tokenizer.decode([ids[end - 1]]).strip():
            end -= 1
        if end > start and ids[end - 1] not in special:
            end = run[-1] + 1  # an answer without end token keeps its white space
        trimmed[start:end] = [1] * (end - start)
    return trimmed


def _generation_prompt(tokenizer: Any) -> list[int]:
    question = [{"role": "user", "content": "a"}]
    before, prompt = render(tokenizer, question), render(tokenizer, question, prompt=True)
    if not prompt.startswith(before):
        return []
    ids: list[int] = tokenizer(prompt[len(before) :], add_special_tokens=False)["input_ids"]
    return ids
