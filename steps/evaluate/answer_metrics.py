"""How near an answer comes to the one that is wanted, each from 0 to 1.

Exact match is that of SQuAD (Rajpurkar et al., 2016): case, punctuation, English articles and white space don't count.
ROUGE-L (Lin, 2004) is the F-measure of the longest common subsequence of words, without stemming.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Scores:
    """Of one answer, or the means of many."""

    exact_match: float
    rouge_l: float


def score(answer: str, reference: str) -> Scores:
    """Compare an answer with the one that the row has."""
    from torchmetrics.functional.text import rouge_score, squad

    wanted: dict[str, Any] = {"answers": {"answer_start": [0], "text": [reference]}, "id": "0"}
    exact = squad({"prediction_text": answer, "id": "0"}, wanted)["exact_match"]
    rouge = rouge_score(answer, reference, rouge_keys="rougeL", normalizer=_plain)["rougeL_fmeasure"]
    return Scores(exact_match=float(exact) / 100, rouge_l=round(float(rouge), 4))


def mean(scores: Sequence[Scores]) -> Scores | None:
    """Means of the scores of many answers; None where there are none."""
    if not scores:
        return None
    return Scores(
        exact_match=round(sum(one.exact_match for one in scores) / len(scores), 4),
        rouge_l=round(sum(one.rouge_l for one in scores) / len(scores), 4),
    )


def _plain(text: str) -> str:
    """As rouge-score's default, which knows the letters a to z alone, but with the letters of all alphabets."""
    return re.sub(r"[\W_]+", " ", text.lower())
