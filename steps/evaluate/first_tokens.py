"""Probabilities of the first tokens of some answers, by base and adapter, for the check of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.data.chat_tokens import Message
from steps.evaluate.answers import generate
from steps.models import token_distributions
from steps.models.token_distributions import NUM_TOKENS, shortest

FirstTokens = dict[str, list[dict[str, Any]]]
"""Positions of the adapter's answer under ``base`` and ``adapter`` (``steps.models.token_distributions``)."""


def measure(
    model: Any, tokenizer: Any, questions: Sequence[Sequence[Message]], ends: Sequence[int]
) -> list[FirstTokens | None]:
    """Return the probabilities for the shortest questions, None for the others.

    Both models score the same tokens, those that the adapter chooses, so that their positions can be compared.

    Args:
        model: PEFT model whose active adapter is the evaluated one.
        tokenizer: Its tokenizer.
        questions: Messages, of which the last is the user's.
        ends: Ids of tokens that end an answer.
    """
    measured: list[FirstTokens | None] = [None] * len(questions)
    for idx in shortest(questions):
        prompt, answer = generate(model, tokenizer, [questions[idx]], ends, NUM_TOKENS)
        prompt_ids, answer_ids = prompt[0].tolist(), answer[0].tolist()
        adapter = token_distributions.score(model, prompt_ids, answer_ids)
        with model.disable_adapter():
            base = token_distributions.score(model, prompt_ids, answer_ids)
        measured[idx] = {"base": token_distributions.to_json(base), "adapter": token_distributions.to_json(adapter)}
    return measured
