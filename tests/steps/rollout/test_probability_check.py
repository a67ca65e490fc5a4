"""An adapter that the server drops is found by the probabilities, also where the texts are the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.models import token_distributions
from steps.models.adapter import adapter_digest
from steps.models.token_distributions import Position
from steps.rollout import answer_check, probability_check
from steps.rollout.probability_check import MAX_DISTANCE, check
from steps.rollout.settings import Settings
from steps.runtime.errors import StepError
from steps.serving.serving_client import Answer, RequestRejected

TOKENS = 4


def positions(shift: float, tokens: Sequence[int] = range(TOKENS)) -> list[Position]:
    """Return positions whose first token has probability 0.9 - ``shift`` and whose second one has the rest."""
    return [Position(one, {one: math.log(0.9 - shift), 50: math.log(0.1 + shift)}) for one in tokens]


def sample(base: float, adapter: float = 0.0) -> dict[str, Any]:
    stored = {"base": positions(base), "adapter": positions(adapter)}
    return {"first_tokens": {name: token_distributions.to_json(value) for name, value in stored.items()}}


def answer(values: Sequence[Position]) -> Answer:
    return Answer("", "", True, values)


def outcome(base: float, served: float, served_base: float | None = None, **options: bool) -> str:
    """Return the problem of a server with these shifts; the adapter's shift is 0 in the evaluation."""
    other = base if served_base is None else served_base
    return check(
        [(sample(base), answer(positions(served)))] * 2, lambda _: answer(positions(other)), **options
    ).problem


def test_the_right_adapter_is_accepted_with_rounding() -> None:
    assert outcome(base=0.5, served=0.0) == ""
    assert outcome(base=0.5, served=0.1, served_base=0.4) == ""
    assert outcome(base=0.02, served=0.015) == "", "the difference of base and adapter is within rounding"


def test_the_base_model_is_rejected() -> None:
    problem = outcome(base=0.5, served=0.45)
    assert problem == (
        "probabilities of 8 first tokens of 2 answers: distance 0.450 to the evaluated adapter, 0.050 to the base: "
        "nearer to the base model"
    )


def test_a_weak_adapter_that_is_dropped_is_found_on_the_server_itself() -> None:
    """Rounding between evaluation and server is larger than the difference of base and adapter."""
    problem = outcome(base=0.02, served=0.03, served_base=0.03)
    assert "on the server, adapter and base model differ by 0.000, in the evaluation by 0.020" in problem
    assert outcome(base=0.02, served=0.03, served_base=0.05) == ""


def test_another_adapter_is_rejected() -> None:
    assert outcome(base=0.7, served=MAX_DISTANCE + 0.05).endswith(f"more than {MAX_DISTANCE}")
    assert outcome(base=0.7, served=MAX_DISTANCE + 0.05, is_quantized=True) == ""


def test_only_tokens_with_the_same_prompt_are_compared() -> None:
    """After the first other token the answers have other prompts, and so have other probabilities."""
    first, second = positions(0.0)[:2]
    diverging = [first, Position(40, second.logprobs), *positions(0.8, [41, 42])]
    found = check([(sample(0.5), answer(diverging))], lambda _: answer(positions(0.5)))
    assert found.summary.startswith("probabilities of 2 first tokens of 1 answers: distance ")
    assert found.problem == ""
    shorter = check([(sample(0.5), answer(positions(0.0)[:2]))], lambda _: answer(positions(0.5)))
    assert shorter.summary.startswith("probabilities of 2 first tokens")


def test_reasons_to_skip_the_comparison() -> None:
    def reject(_: Mapping[str, Any]) -> Answer:
        raise RequestRejected("HTTP 400: no logprobs")

    ask = lambda _: answer(positions(0.5))  # noqa: E731
    without = Answer("", "", True)
    assert check([({}, answer(positions(0)))], ask).summary == "probabilities not compared: the evaluation has none"
    assert check([(sample(0.5), without)], ask).summary == "probabilities not compared: the server returns none"
    assert "HTTP 400" in check([(sample(0.5), answer(positions(0)))], reject).summary
    invalid = {"first_tokens": {"base": 1, "adapter": [{"token": "x"}]}}
    assert "invalid probabilities" in check([(invalid, answer(positions(0)))], ask).summary


@given(st.floats(0, 0.8), st.floats(0, 0.8))
def test_the_evaluated_adapter_is_always_accepted(base: float, adapter: float) -> None:
    same = [(sample(base, adapter), answer(positions(adapter)))]
    assert check(same, lambda _: answer(positions(base))).problem == ""


@pytest.mark.parametrize(
    ("arguments", "top", "quantized"),
    [
        ({}, 20, False),
        ({"max_logprobs": 5}, 5, False),
        ({"max-logprobs": -1, "quantization": None}, 20, False),
        ({"max-logprobs": 0, "quantization": "fp8"}, 0, True),
        ({"kv_cache_dtype": "fp8"}, 20, True),
        ({"kv-cache-dtype": "auto"}, 20, False),
    ],
)
def test_flags_of_the_server(arguments: dict[str, Any], top: int, quantized: bool) -> None:
    assert probability_check.num_top(arguments) == top
    assert probability_check.is_quantized(arguments) == quantized


def test_the_rollout_is_rejected_although_the_texts_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    texts = {"question": "q", "base_answer": "It is blue.", "adapter_answer": "It is blue."}
    record = {
        "adapter_digest": adapter_digest(tmp_path / "adapter"),
        "samples": [{"messages": [{"role": "user", "content": "q"}], **texts, **sample(0.5)}],
    }
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "evaluation.json").write_text(json.dumps(record))
    settings = Settings(work=tmp_path, model="team/base", adapters=[{"name": "tuned", "path": "adapter"}])  # type: ignore[list-item]

    def serving(shift: float) -> Callable[[str, Sequence[Mapping[str, Any]], int], Answer]:
        return lambda model, *_: Answer("It is blue.", "", False, positions(shift if model == "tuned" else 0.5))

    assert answer_check.compare(settings, serving(0.0)) == (
        "1 of 1 answers as in the evaluation; probabilities of 4 first tokens of 1 answers: distance 0.000 to the "
        "evaluated adapter, 0.500 to the base"
    )
    with pytest.raises(StepError, match=r"is not the evaluated adapter: probabilities of 4 .* nearer to the base"):
        answer_check.compare(settings, serving(0.5))
