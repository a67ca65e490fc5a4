from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import save_model

from steps.models import token_distributions
from steps.models.token_distributions import MAX_QUESTIONS, TOP, Position, distance

VOCABULARY = 60


def top(probabilities: Mapping[int, float], number: int = TOP) -> dict[int, float]:
    """Return the log-probabilities of the most probable tokens."""
    best = sorted(probabilities, key=lambda token: -probabilities[token])[:number]
    return {token: math.log(probabilities[token]) for token in best}


def random_distribution(seed: int, sharpness: float) -> dict[int, float]:
    rng = random.Random(seed)
    weights = [math.exp(sharpness * rng.random()) for _ in range(VOCABULARY)]
    return {token: weight / sum(weights) for token, weight in enumerate(weights)}


def exact(one: Mapping[int, float], other: Mapping[int, float]) -> float:
    return sum(abs(one[token] - other[token]) for token in one) / 2


@given(st.integers(0, 99), st.integers(0, 99), st.floats(0, 12))
def test_the_distance_is_a_lower_bound_of_the_exact_one(left: int, right: int, sharpness: float) -> None:
    one, other = random_distribution(left, sharpness), random_distribution(right, sharpness)
    measured = distance(top(one), top(other))
    assert 0 <= measured <= exact(one, other) + 1e-9
    assert measured == pytest.approx(distance(top(other), top(one)))
    assert distance(top(one, VOCABULARY), top(other, VOCABULARY)) == pytest.approx(exact(one, other))
    assert distance(top(one), top(one)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({1: 0.9}, {2: 0.9}, 0.8),
        ({1: 0.9, 2: 0.1}, {1: 0.1, 2: 0.9}, 0.8),
        ({1: 0.5, 2: 0.1}, {1: 0.5, 3: 0.1}, 0.0),  # the last tokens of the lists can have changed places
        ({1: 0.6, 2: 0.01}, {1: 0.6, 3: 0.2}, 0.19),
        ({1: 1.0}, {2: 1.0}, 1.0),
    ],
)
def test_tokens_that_one_side_does_not_list(one: dict[int, float], other: dict[int, float], expected: float) -> None:
    lists = [{token: math.log(value) for token, value in side.items()} for side in (one, other)]
    assert distance(*lists) == pytest.approx(expected)


def test_an_empty_list_is_another_distribution() -> None:
    assert distance({}, {1: 0.0}) == 1.0
    assert distance({}, {}) == 0.0


def test_positions_are_stored_and_read() -> None:
    positions = [Position(3, {3: -0.25, 4: -1.5}), Position(5, {5: 0.0})]
    stored = json.loads(json.dumps(token_distributions.to_json(positions)))
    assert token_distributions.from_json(stored) == positions
    assert token_distributions.from_json(None) == []


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["token", "top", "logprob", "top_logprobs", "x"]), inner)))  # fmt: skip
def test_foreign_content_is_rejected_or_empty(content: Any) -> None:
    try:
        token_distributions.from_json(content)
    except ValueError as error:
        assert str(error).startswith("invalid probabilities")
    assert isinstance(token_distributions.from_openai(content), list)


def test_openai_content_with_ids() -> None:
    entry = {"token": "token_id:7", "logprob": -0.5, "top_logprobs": [{"token": "token_id:7", "logprob": -0.5}]}
    assert token_distributions.from_openai([entry, entry]) == [Position(7, {7: -0.5})] * 2
    as_text = {"token": " the", "logprob": -0.5, "top_logprobs": [{"token": " the", "logprob": -0.5}]}
    assert token_distributions.from_openai([entry, as_text, entry]) == [Position(7, {7: -0.5})]
    assert token_distributions.from_openai([entry | {"top_logprobs": []}]) == []
    assert token_distributions.from_openai(None) == []


def test_scores_are_those_of_the_model_step_by_step(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(save_model(tmp_path)).eval()
    prompt, answer = [5, 6, 7], [11, 12, 13]
    positions = token_distributions.score(model, prompt, answer)
    assert [one.token for one in positions] == answer
    for number, position in enumerate(positions):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer[:number]])).logits[0, -1]
        expected = torch.log_softmax(logits.float(), -1)
        assert list(position.logprobs) == expected.topk(TOP).indices.tolist()
        assert list(position.logprobs.values()) == pytest.approx(expected.topk(TOP).values.tolist(), abs=1e-4)
        assert position.logprob == pytest.approx(float(expected[answer[number]]), abs=1e-4)
    assert token_distributions.score(model, prompt, []) == []


def test_the_shortest_questions_are_compared() -> None:
    questions = [[{"role": "user", "content": "x" * length}] for length in (9, 1, 8, 2, 7, 3, 6)]
    assert token_distributions.shortest(questions) == [1, 3, 5, 6, 4]
    assert len(token_distributions.shortest(questions)) == MAX_QUESTIONS
    assert token_distributions.shortest([]) == []
