from __future__ import annotations

import random

import pytest

from steps.evaluate.bootstrap import ratio_interval


def losses(rows: int, seed: int) -> tuple[list[float], list[float]]:
    """Rows of very different difficulty, on each of which the second is about half of the first."""
    draw = random.Random(seed)
    before = [draw.lognormvariate(1, 1) for _ in range(rows)]
    return before, [loss * draw.uniform(0.3, 0.7) for loss in before]


def test_the_interval_holds_the_ratio_as_often_as_it_says() -> None:
    held = 0
    for seed in range(100):
        low, high = ratio_interval(*losses(60, seed), seed=1)
        held += low <= 0.5 <= high
    assert 88 <= held <= 100


def test_more_rows_make_it_narrower_and_the_seed_makes_it_the_same() -> None:
    few, many = (ratio_interval(*losses(rows, 3), seed=1) for rows in (30, 3000))
    assert many[1] - many[0] < (few[1] - few[0]) / 4
    assert ratio_interval(*losses(30, 3), seed=1) == few


def test_pairs_are_kept_together() -> None:
    """Of two that are equal row by row the ratio is 1, however the rows differ."""
    before, _ = losses(50, 5)
    assert ratio_interval(before, before, seed=1) == (pytest.approx(1), pytest.approx(1))


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 2.0])])
def test_what_can_not_be_compared_is_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="same rows"):
        ratio_interval(before, after, seed=1)
