"""Confidence interval of a ratio of losses: a paired bootstrap over the held-out rows."""

from __future__ import annotations

from collections.abc import Sequence

DRAWS = 2000
LEVEL = 0.95


def ratio_interval(before: Sequence[float], after: Sequence[float], seed: int) -> tuple[float, float]:
    """Return the ``LEVEL`` confidence interval of ``sum(after) / sum(before)``.

    This is the percentile bootstrap of Efron and Tibshirani (1993, chapter 13). Rows are drawn with replacement, and
    both losses of a row together, since a row that is hard for one model is hard for the other.

    Args:
        before: Losses of the rows by one model.
        after: Losses of the same rows by the other model.
        seed: Seed of the draws.

    Raises:
        ValueError: There are no rows, or the lengths differ.
    """
    import numpy as np

    if not before or len(before) != len(after):
        raise ValueError("before and after must be losses of the same rows, and not empty")
    rng = np.random.RandomState(seed)  # its stream never changes (NEP 19)
    count = len(before)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    ratios = (weights @ np.asarray(after)) / (weights @ np.asarray(before))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return float(low), float(high)
