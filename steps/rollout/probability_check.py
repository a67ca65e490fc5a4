"""Compare the probabilities of the first tokens that the server returns with those of the evaluation.

Texts can hide an adapter that the server has dropped: base and adapter often begin an answer with the same words. The
probabilities before each word differ all the same. They are compared up to the first token on which server and
evaluation differ, since the following ones have other prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.models import token_distributions
from steps.models.token_distributions import TOP, Position, distance
from steps.serving.serving_client import Answer, RequestRejected

MAX_DISTANCE = 0.15
"""Maximum mean distance of the served adapter to the evaluated one; rounding and other kernels stay far below."""
MAX_QUANTIZED_DISTANCE = 0.5
"""The same if only the evaluation or only the server has a quantized base model."""
MIN_DIFFERENCE = 0.05
"""Distance of base and adapter from which rounding cannot turn one into the other."""
MIN_SHARE = 0.2
"""Minimum distance of adapter and base on the same server, as a share of that in the evaluation."""
MIN_MEASURABLE = 0.005
"""Distance of base and adapter below which the share is not measured."""

Sample = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Result of the comparison."""

    summary: str
    problem: str = ""
    """Reason why the served model is not the evaluated adapter; "" if it can be."""


@dataclass(frozen=True)
class _Position:
    """Distances at one token."""

    to_adapter: float
    to_base: float
    expected: float
    """Distance of adapter and base in the evaluation."""
    on_server: float | None
    """Distance of adapter and base on the server; None if their prompts differ here."""


def num_top(server_arguments: Mapping[str, Any]) -> int:
    """Return the number of tokens whose probabilities the server is allowed to return."""
    limit = {str(key).replace("_", "-"): value for key, value in server_arguments.items()}.get("max-logprobs", TOP)
    return TOP if type(limit) is not int or limit < 0 else min(TOP, limit)


def is_quantized(server_arguments: Mapping[str, Any]) -> bool:
    """Return True if the flags quantize the weights or the cache of the server."""
    flags = {str(key).replace("_", "-"): value for key, value in server_arguments.items()}
    return flags.get("quantization") is not None or flags.get("kv-cache-dtype", "auto") != "auto"


def check(
    answers: Sequence[tuple[Sample, Answer]], ask_base: Callable[[Sample], Answer], *, is_quantized: bool = False
) -> Outcome:
    """Compare answers of the server with the samples of the evaluation.

    Args:
        answers: Samples with the answer of the served adapter.
        ask_base: Returns the answer of the base model on the same server.
        is_quantized: True if the base model was quantized on one side only.
    """
    measurable = [
        (sample, answer) for sample, answer in answers if answer.positions and sample.get("first_tokens", {})
    ]
    if not measurable:
        has_stored = any(sample.get("first_tokens") for sample, _ in answers)
        reason = "the server returns none" if has_stored else "the evaluation has none"
        return Outcome(f"probabilities not compared: {reason}")
    try:
        positions = [one for sample, answer in measurable for one in _compare(sample, answer, ask_base)]
    except (ValueError, RequestRejected) as error:
        return Outcome(f"probabilities not compared: {error}")
    return _judge(positions, len(measurable), MAX_QUANTIZED_DISTANCE if is_quantized else MAX_DISTANCE)


def _compare(sample: Sample, answer: Answer, ask_base: Callable[[Sample], Answer]) -> Iterator[_Position]:
    """Yield the distances up to the first token on which server and evaluation differ."""
    stored = {name: token_distributions.from_json(sample["first_tokens"].get(name)) for name in ("adapter", "base")}
    served_base = list(ask_base(sample).positions)
    same_prompt = True
    triples = zip(answer.positions, stored["adapter"], stored["base"], strict=False)  # one answer can be shorter
    for number, (served, adapter, base) in enumerate(triples):
        other = served_base[number] if same_prompt and number < len(served_base) else None
        yield _Position(
            distance(served.logprobs, adapter.logprobs),
            distance(served.logprobs, base.logprobs),
            distance(adapter.logprobs, base.logprobs),
            distance(served.logprobs, other.logprobs) if other else None,
        )
        same_prompt = same_prompt and _has_token(other, served.token)
        if served.token != adapter.token:
            return


def _has_token(position: Position | None, token: int) -> bool:
    return position is not None and position.token == token


def _judge(positions: Sequence[_Position], questions: int, limit: float) -> Outcome:
    to_adapter, to_base = _mean(one.to_adapter for one in positions), _mean(one.to_base for one in positions)
    expected = _mean(one.expected for one in positions)
    comparable = [one for one in positions if one.on_server is not None]
    on_server = _mean(one.on_server or 0.0 for one in comparable)
    expected_on_server = _mean(one.expected for one in comparable)
    count = f"{len(positions)} first tokens of {questions} answers"
    summary = (
        f"probabilities of {count}: distance {to_adapter:.3f} to the evaluated adapter, {to_base:.3f} to the base"
    )
    problem = ""
    if expected >= MIN_DIFFERENCE and to_base < to_adapter:
        problem = f"{summary}: nearer to the base model"
    elif expected_on_server >= MIN_MEASURABLE and on_server < MIN_SHARE * expected_on_server:
        problem = (
            f"{summary}; on the server, adapter and base model differ by {on_server:.3f}, in the evaluation by "
            f"{expected_on_server:.3f}"
        )
    elif to_adapter > limit:
        problem = f"{summary}: more than {limit}"
    return Outcome(summary, problem)


def _mean(values: Iterator[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
