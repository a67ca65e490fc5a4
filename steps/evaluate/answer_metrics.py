"""Metrics that compare an answer with its reference, from 0 to 1.

Exact match is SQuAD's (Rajpurkar et al., 2016): case, punctuation, English articles and white space are ignored.
ROUGE-L (Lin, 2004) is the F-measure of the longest common subsequence of words, without stemming.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """Metrics of one answer, or means over several."""

    exact_match: float
    rouge_l: float


def score(answer: str, reference: str) -> Scores:
    """Return the metrics of an answer against the row's reference."""
    from torchmetrics.functional.text import rouge_score, squad

    target: dict[str, Any] = {"answers": {"answer_start": [0], "text": [reference]}, "id": "0"}
    exact = squad({"prediction_text": answer, "id": "0"}, target)["exact_match"]
    rouge = rouge_score(answer, reference, rouge_keys="rougeL", normalizer=_normalize)["rougeL_fmeasure"]
    return Scores(exact_match=float(exact) / 100, rouge_l=round(float(rouge), 4))


def mean(scores: Sequence[Scores]) -> Scores | None:
    """Return the mean metrics; None if there are no answers."""
    if not scores:
        return None
    return Scores(
        exact_match=round(sum(score.exact_match for score in scores) / len(scores), 4),
        rouge_l=round(sum(score.rouge_l for score in scores) / len(scores), 4),
    )


def _normalize(text: str) -> str:
    """Normalize like rouge-score, whose default keeps only a to z, but keep the letters of all alphabets."""
    return re.sub(r"[\W_]+", " ", text.lower())
