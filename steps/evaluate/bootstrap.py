"""How sure a comparison of losses is: a paired bootstrap over the held-out rows."""

from __future__ import annotations

from collections.abc import Sequence

DRAWS = 2000
LEVEL = 0.95


def ratio_interval(before: Sequence[float], after: Sequence[float], seed: int) -> tuple[float, float]:
    """Interval that holds the ratio of the two sums with a confidence of ``LEVEL``; each pair is of one row.

    The percentile bootstrap of Efron and Tibshirani (1993, chapter 13): rows are drawn with replacement, always both
    losses of a row together, since a hard row is hard for both.

    Raises:
        ValueError: no rows, or not as many in both.
    """
    import numpy as np

    if not before or len(before) != len(after):
        raise ValueError("give the losses of the same rows, at least of one")
    draw = np.random.RandomState(seed)  # its stream never changes (NEP 19)
    count = len(before)
    times = draw.multinomial(count, np.full(count, 1 / count), size=DRAWS)
    ratios = (times @ np.asarray(after)) / (times @ np.asarray(before))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return float(low), float(high)
