"""Probabilities of the first tokens of some answers, by base and adapter, for the check of the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steps.data.chat_tokens import Message
from steps.evaluate.answers import Answer
from steps.models import token_distributions
from steps.models.token_distributions import NUM_TOKENS, shortest

FirstTokens = dict[str, list[dict[str, Any]]]
"""Positions of the adapter's answer under ``base`` and ``adapter`` (``steps.models.token_distributions``)."""


def measure(model: Any, questions: Sequence[Sequence[Message]], answers: Sequence[Answer]) -> list[FirstTokens | None]:
    """Return the probabilities for the shortest questions, None for the others.

    Both models score the same tokens, those that the adapter chooses, so that their positions can be compared.

    Args:
        model: PEFT model whose active adapter is the evaluated one.
        questions: Messages, of which the last is the user's.
        answers: The adapter's answers to them.
    """
    measured: list[FirstTokens | None] = [None] * len(questions)
    for idx in shortest(questions):
        prompt, tokens = answers[idx].prompt, answers[idx].tokens[:NUM_TOKENS]
        adapter = token_distributions.score(model, prompt, tokens)
        with model.disable_adapter():
            base = token_distributions.score(model, prompt, tokens)
        measured[idx] = {"base": token_distributions.to_json(base), "adapter": token_distributions.to_json(adapter)}
    return measured
