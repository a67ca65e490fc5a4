from __future__ import annotations

import random

import pytest

from steps.evaluate.bootstrap import ratio_interval


def losses(rows: int, seed: int) -> tuple[list[float], list[float]]:
    """Losses of very different rows; the second of each pair is about half of the first."""
    rng = random.Random(seed)
    before = [rng.lognormvariate(1, 1) for _ in range(rows)]
    return before, [loss * rng.uniform(0.3, 0.7) for loss in before]


def test_the_interval_contains_the_ratio_at_its_confidence_level() -> None:
    contained = 0
    for seed in range(100):
        low, high = ratio_interval(*losses(60, seed), seed=1)
        contained += low <= 0.5 <= high
    assert 88 <= contained <= 100


def test_more_rows_narrow_the_interval_and_the_seed_reproduces_it() -> None:
    few, many = (ratio_interval(*losses(rows, 3), seed=1) for rows in (30, 3000))
    assert many[1] - many[0] < (few[1] - few[0]) / 4
    assert ratio_interval(*losses(30, 3), seed=1) == few


def test_pairs_are_kept_together() -> None:
    """The ratio of equal losses is 1, however much the rows differ."""
    before, _ = losses(50, 5)
    assert ratio_interval(before, before, seed=1) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 2.0])])
def test_losses_of_different_rows_are_rejected(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="same rows"):
        ratio_interval(before, after, seed=1)
