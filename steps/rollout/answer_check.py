"""What is served is what was evaluated: the server is asked what the adapter was asked in the evaluation.

Word for word the same can't be demanded: servers compute with other kernels than the evaluation, and where memory is
short that had a base in 4 bits, so that a healthy server's answer may take another turn after some words. What is
refused is what no rounding explains: the adapter says what the base model says, or its answers have next to nothing in
common with those of the evaluation (another adapter, another chat template, cut short).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steps.models.adapter import adapter_digest
from steps.rollout import adapter_sources
from steps.rollout.settings import Settings
from steps.runtime.errors import StepError
from steps.serving.serving_client import Answer, RequestRejected

MAX_QUESTIONS = 5
"""Asked at most, the shortest first."""
MAX_TOKENS = 24
"""Of an answer: enough to know whose it is."""
WORDS, APART = 12, 0.5
"""Adapter and base are told apart by a question whose answers were less similarity than this in their first words."""
MIN_SIMILARITY = 0.1
"""The least that the served answers have in common with those of the evaluation, on average; 1 is the same words."""
LETTERS = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Of Japanese, Chinese and Korean."""

Ask = Callable[[str, Sequence[Mapping[str, Any]], int], Answer]
"""Of a model's name, messages and the tokens of an answer."""


@dataclass(frozen=True)
class _Compared:
    messages: Sequence[Mapping[str, Any]]
    question: str
    adapter: str
    """Its answer in the evaluation."""
    served: Answer
    similarity: float
    """How much of it is served."""
    discriminative: bool
    """Whether the base answered otherwise in the evaluation."""


def compare(settings: Settings, ask: Ask) -> str:
    """Hold the served adapter's answers against those of the evaluation; gives a sentence of what came of it.

    Raises:
        StepError: what is served is not what was evaluated; or as ``ask`` raises.
    """
    name = _tuned(settings)
    if not name:
        return "not compared: no adapter of this run is served"
    told = _evaluation(settings.work)
    if not told.get("samples"):
        why = "answered nothing in its evaluation (evaluation.samples is 0)" if told else "was not evaluated"
        return f"not compared: the adapter {why}"
    if told.get("adapter_digest") != adapter_digest(settings.work / "adapter"):
        return "not compared: another adapter was evaluated"
    tokens = min(MAX_TOKENS, int(told.get("max_new_tokens", MAX_TOKENS)))
    compared, refused = [], ""
    for sample in sorted(told["samples"], key=_length)[:MAX_QUESTIONS]:
        try:
            compared.append(_compared(sample, ask(name, sample["messages"], tokens)))
        except RequestRejected as error:
            refused = error.message
    if not compared:
        return f"not compared: the server takes none of the evaluation's questions: {refused}"
    base = adapter_sources.base_name(settings)
    if _matches_base_model(compared, lambda one: ask(base, one.messages, tokens)):
        raise _error("it says word for word what the base model says, where the adapter said something else", compared)
    similarity = sum(one.similarity for one in compared) / len(compared)
    if similarity < MIN_SIMILARITY:
        raise _error(f"{similarity:.0%} of its words are those of the evaluation", compared)
    same = sum(one.similarity == 1 for one in compared)
    others = "" if same == len(compared) else f", with {similarity:.0%} of the words in common over all"
    return f"{same} of {len(compared)} answers as in the evaluation{others}"


def _tuned(settings: Settings) -> str:
    """Name that the adapter of this run is served under, whose folder is the work folder's; empty if it is not."""
    own = [one.name for one in settings.adapters if one.path and settings.work / one.path == settings.work / "adapter"]
    return own[0] if own else ""


def _evaluation(work: Path) -> dict[str, Any]:
    try:
        told = json.loads((work / "report" / "evaluation.json").read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _length(sample: Mapping[str, Any]) -> int:
    return sum(len(str(message["content"])) for message in sample["messages"])


def _compared(sample: Mapping[str, Any], served: Answer) -> _Compared:
    adapter, base = sample["adapter_answer"], sample["base_answer"]
    return _Compared(
        messages=sample["messages"],
        question=sample["question"],
        adapter=adapter,
        served=served,
        similarity=_similarity(served, adapter),
        discriminative=_ratio(_split(base)[:WORDS], _split(adapter)[:WORDS]) < APART,
    )


def _matches_base_model(compared: Sequence[_Compared], ask_base: Callable[[_Compared], Answer]) -> bool:
    """Asked of the same server, so that rounding makes no difference; mostly the first answers settle it."""
    discriminative = [one for one in compared if one.discriminative]
    if any(one.similarity == 1 for one in discriminative):
        return False
    return bool(discriminative) and all(_words(ask_base(one)) == _words(one.served) for one in discriminative)


def _similarity(said: Answer, wanted: str) -> float:
    """How much two answers have in common, from 0 to 1: by the words that stand in both, in their order."""
    words, others = _words(said), _split(wanted)
    if said.truncated:
        words = words[:-1] or words  # the last may be half a word
        others = others[: len(words)]
    return _ratio(words, others)


def _ratio(words: Sequence[str], others: Sequence[str]) -> float:
    if not words or not others:
        return float(words == others)
    return difflib.SequenceMatcher(None, words, others, autojunk=False).ratio()


def _words(said: Answer) -> list[str]:
    return _split(f"{said.reasoning} {said.content}")


def _split(text: str) -> list[str]:
    """Words, without the signs between them; of writing without spaces each letter."""
    without_tags = re.sub(r"</?think>", " ", text)
    return re.findall(f"[{LETTERS}]|[^\\W{LETTERS}]+", without_tags)


def _error(what: str, compared: Sequence[_Compared]) -> StepError:
    worst = min(compared, key=lambda one: one.similarity)
    said = f"asked {_short(worst.question)!r} it says {_short(worst.served.content)!r}, not {_short(worst.adapter)!r}"
    return StepError(
        f"what is served is not the adapter that was evaluated: {what}; {said}",
        "see that the server has the base model, the chat template and the adapter of the evaluation "
        "(rollout.serverArguments); with evaluation.samples=0 nothing is compared",
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:100]}..."
