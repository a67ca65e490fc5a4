"""Verify that the server answers like the evaluated adapter, with questions of the evaluation.

Probabilities of the first tokens are compared too, if the server returns them (``probability_check``).

The answers need not be identical: the server uses other kernels than the evaluation, which possibly had a 4-bit base
model, so a correct answer can diverge after some words. The check rejects what rounding cannot explain: the adapter
answers like the base model, or its answers have almost nothing in common with those of the evaluation, for example
because of another adapter or chat template.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models.adapter import adapter_digest
from steps.models.token_distributions import NUM_TOKENS, shortest
from steps.rollout import adapter_sources, probability_check
from steps.rollout.settings import Settings
from steps.runtime.errors import StepError
from steps.runtime.json_text import parse_json
from steps.serving.serving_client import Answer, RequestRejected

MAX_TOKENS = 24
"""Tokens of an answer: enough to tell adapter and base model apart."""
NUM_WORDS, MAX_BASE_SIMILARITY = 12, 0.5
"""A question is discriminative if the first words of the answers of adapter and base are less similar than this."""
MIN_SIMILARITY = 0.1
"""Minimum mean similarity of the served answers to those of the evaluation; 1 is identical words."""
LETTERS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Character class of Japanese, Chinese and Korean letters."""

Ask = Callable[[str, Sequence[Mapping[str, Any]], int], Answer]
"""Returns the answer of a model to messages, given the maximum number of tokens."""


@dataclass(frozen=True)
class _Comparison:
    messages: Sequence[Mapping[str, Any]]
    question: str
    adapter: str
    """Answer of the adapter in the evaluation."""
    served: Answer
    sample: Mapping[str, Any]
    """The question in the evaluation's record."""
    similarity: float
    """Similarity of the two, from 0 to 1."""
    discriminative: bool
    """True if the base model answered differently in the evaluation."""


def compare(settings: Settings, ask: Ask) -> str:
    """Compare the served adapter's answers with those of the evaluation; return the result as a sentence.

    Raises:
        StepError: The answers differ too much; or the error of ``ask``.
    """
    name = _tuned_name(settings)
    if not name:
        return "not compared: no adapter of this run is served"
    evaluation = read_evaluation(settings.work)
    if not evaluation.get("samples"):
        reason = "has no answers in its evaluation (evaluation.samples is 0)" if evaluation else "was not evaluated"
        return f"not compared: the adapter {reason}"
    if evaluation.get("adapter_digest") != adapter_digest(settings.work / "adapter"):
        return "not compared: another adapter was evaluated"
    tokens = min(MAX_TOKENS, int(evaluation.get("max_new_tokens", MAX_TOKENS)))
    compared, rejected = [], ""
    for idx in shortest([sample["messages"] for sample in evaluation["samples"]]):
        sample = evaluation["samples"][idx]
        try:
            compared.append(_compare_sample(sample, ask(name, sample["messages"], tokens)))
        except RequestRejected as error:
            rejected = error.message
    if not compared:
        return f"not compared: the server rejects all questions of the evaluation: {rejected}"
    base = adapter_sources.base_name(settings)
    if _matches_base_model(compared, lambda one: ask(base, one.messages, tokens)):
        raise _error("the server answers exactly like the base model", compared)
    similarity = sum(one.similarity for one in compared) / len(compared)
    if similarity < MIN_SIMILARITY:
        raise _error(f"{similarity:.0%} of the words match those of the evaluation", compared)
    found = probability_check.check(
        [(one.sample, one.served) for one in compared],
        lambda sample: ask(base, sample["messages"], min(tokens, NUM_TOKENS)),
        is_quantized=bool(evaluation.get("quantized")) or probability_check.is_quantized(settings.server_arguments),
    )
    if found.problem:
        raise _error(found.problem, compared)
    identical = sum(one.similarity == 1 for one in compared)
    overall = "" if identical == len(compared) else f", {similarity:.0%} of all words match"
    return f"{identical} of {len(compared)} answers as in the evaluation{overall}; {found.summary}"


def _tuned_name(settings: Settings) -> str:
    """Return the name of the adapter that this run has tuned; "" if it is not served."""
    path = settings.work / "adapter"
    return next((one.name for one in settings.adapters if one.path and settings.work / one.path == path), "")


def read_evaluation(work: Path) -> dict[str, Any]:
    """Return the record of the evaluation; empty if there is none that can be read."""
    try:
        content = parse_json((work / "report" / "evaluation.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _compare_sample(sample: Mapping[str, Any], served: Answer) -> _Comparison:
    adapter, base = sample["adapter_answer"], sample["base_answer"]
    return _Comparison(
        messages=sample["messages"],
        question=sample["question"],
        adapter=adapter,
        served=served,
        sample=sample,
        similarity=_similarity(served, adapter),
        discriminative=_ratio(_split(base)[:NUM_WORDS], _split(adapter)[:NUM_WORDS]) < MAX_BASE_SIMILARITY,
    )


def _matches_base_model(compared: Sequence[_Comparison], ask_base: Callable[[_Comparison], Answer]) -> bool:
    """Return True if all discriminative answers are those of the base model on the same server (same rounding)."""
    discriminative = [one for one in compared if one.discriminative]
    if any(one.similarity == 1 for one in discriminative):
        return False
    return bool(discriminative) and all(_words(ask_base(one)) == _words(one.served) for one in discriminative)


def _similarity(served: Answer, expected: str) -> float:
    """Return the similarity of two answers from 0 to 1, by their common words in order."""
    words, others = _words(served), _split(expected)
    if served.truncated:
        words = words[:-1] or words  # the last word can be incomplete
        others = others[: len(words)]
    return _ratio(words, others)


def _ratio(words: Sequence[str], others: Sequence[str]) -> float:
    if not words or not others:
        return float(words == others)
    return difflib.SequenceMatcher(None, words, others, autojunk=False).ratio()


def _words(answer: Answer) -> list[str]:
    return _split(f"{answer.reasoning} {answer.content}")


def _split(text: str) -> list[str]:
    """Split text into words without punctuation, and scripts without spaces into letters."""
    without_tags = re.sub(r"</?think>", " ", text)
    return re.findall(f"[{LETTERS}]|[^\\W{LETTERS}]+", without_tags)


def _error(message: str, compared: Sequence[_Comparison]) -> StepError:
    worst = min(compared, key=lambda one: one.similarity)
    served, expected = _shorten(worst.served.content), _shorten(worst.adapter)
    example = f"the answer to {_shorten(worst.question)!r} is {served!r}, not {expected!r}"
    return StepError(
        f"the served model is not the evaluated adapter: {message}; {example}",
        "use the base model, chat template and adapter of the evaluation (rollout.serverArguments), or set "
        "evaluation.samples=0 to skip the check",
    )


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:100]}..."
