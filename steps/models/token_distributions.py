"""Probabilities of the first tokens of an answer: how they are measured, stored and compared.

The evaluation stores them for base and adapter; the rollout compares the served adapter with both. A position is the
token that the adapter chose and the most probable tokens with their log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NUM_TOKENS = 8
"""Positions of an answer that are compared at most."""
MAX_QUESTIONS = 5
"""Questions of an evaluation that are compared at most."""
TOP = 20
"""Tokens of a position: the maximum of OpenAI's API, and of vLLM by default."""


@dataclass(frozen=True)
class Position:
    """A token of an answer, and the probabilities before it was chosen."""

    token: int
    """Id of the token."""
    logprobs: Mapping[int, float]
    """Log-probabilities of the most probable tokens, by id."""
    logprob: float = 0.0
    """Log-probability of the token itself, which can be a less probable one if it was sampled."""


def shortest(questions: Sequence[Sequence[Mapping[str, Any]]]) -> list[int]:
    """Return the indices of the questions to compare: the shortest, in order of their length in characters."""
    lengths = [sum(len(str(message["content"])) for message in messages) for messages in questions]
    return sorted(range(len(questions)), key=lambda idx: lengths[idx])[:MAX_QUESTIONS]


def score(model: Any, prompt: Sequence[int], answer: Sequence[int], top: int = TOP) -> list[Position]:
    """Return the positions of an answer under a model, in one forward pass over prompt and answer."""
    import torch

    if not answer:
        return []
    tokens = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 :].float()
        logprobs = torch.log_softmax(logits, -1)
        best = logprobs.topk(min(top, logits.shape[-1]))
        chosen = logprobs.gather(1, torch.tensor(answer, device=logits.device)[:, None])[:, 0]
    columns = (best.indices.tolist(), best.values.tolist(), chosen.tolist())
    return [
        Position(token, dict(zip(ids, values, strict=True)), logprob)
        for token, ids, values, logprob in zip(answer, *columns, strict=True)
    ]


def to_json(positions: Iterable[Position]) -> list[dict[str, Any]]:
    """Return positions for a report."""
    return [
        {"token": one.token, "top": [[token, round(value, 5)] for token, value in one.logprobs.items()]}
        for one in positions
    ]


def from_json(content: Any) -> list[Position]:
    """Return the positions of a report; [] if it has none.

    Raises:
        ValueError: They were not written by ``to_json``.
    """
    try:
        return [
            Position(int(one["token"]), {int(token): float(value) for token, value in one["top"]})
            for one in content or []
        ]
    except (TypeError, ValueError, LookupError) as error:
        raise ValueError(f"invalid probabilities of tokens: {error}") from None


def from_openai(content: Any) -> list[Position]:
    """Return the positions of ``choices[].logprobs.content`` with token ids (``return_tokens_as_token_ids``).

    Returns:
        The positions before the first one that is not complete; [] for a server that returns none.
    """
    positions = []
    for one in content if isinstance(content, list) else []:
        try:
            top = {_token_id(entry["token"]): float(entry["logprob"]) for entry in one["top_logprobs"]}
            positions.append(Position(_token_id(one["token"]), top))
        except (TypeError, ValueError, LookupError, AttributeError):
            break
        if not top:
            return positions[:-1]
    return positions


def distance(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    """Return the total variation distance of two distributions, from 0 to 1.

    The lists of most probable tokens give a lower bound of it: a token that only one side lists is as probable on the
    other side as that side's list allows, so the order at the end of the lists does not count.
    """
    left, right = _probabilities(one), _probabilities(other)
    if not left or not right:
        return float(left != right)
    limits = _limit(left), _limit(right)
    pairs = [
        (
            left.get(token, min(right.get(token, 0.0), limits[0])),
            right.get(token, min(left.get(token, 0.0), limits[1])),
        )
        for token in {*left, *right}
    ]
    rest = [max(0.0, 1.0 - sum(values)) for values in zip(*pairs, strict=True)]
    return min(1.0, (sum(abs(a - b) for a, b in pairs) + abs(rest[0] - rest[1])) / 2)


def _limit(listed: Mapping[int, float]) -> float:
    """Return the maximum probability of a token that is not in a list of the most probable ones."""
    return min(min(listed.values()), max(0.0, 1.0 - sum(listed.values())))


def _probabilities(logprobs: Mapping[int, float]) -> dict[int, float]:
    return {token: math.exp(min(value, 0.0)) for token, value in logprobs.items()}


def _token_id(token: str) -> int:
    return int(token.removeprefix("token_id:"))
