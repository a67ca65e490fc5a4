"""Speed and remaining time of a step."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workflows.runs.progress_rate import WINDOW_SECONDS, ProgressRate


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rate_after(updates):
    clock = Clock()
    rate = ProgressRate(clock)
    for clock.now, done, total in updates:
        rate.update(done, total)
    return rate


@pytest.mark.parametrize(
    ("updates", "text"),
    [
        ([], ""),
        ([(0, 3, 48)], "3/48"),
        ([(0, 0, 48), (1, 1, 48)], "1/48"),
        ([(0, 0, 48), (10, 12, 48)], "12/48 1.2/s 30s left"),
        ([(0, 0, 300), (100, 1, 300)], "1/300 0.010/s 8h left"),
        ([(0, 0, 100), (5, 100, 100)], "100/100 20/s 0s left"),
        ([(0, 0, 400_000_000), (10, 100_000_000, 400_000_000)], "100/400 MB 10.0 MB/s 30s left"),
    ],
)
def test_text(updates, text):
    assert str(rate_after(updates)) == text


def test_the_speed_is_that_of_the_last_minute():
    slow = [(second, 0, 1000) for second in range(0, 300, 10)]
    fast = [(300 + second, 10 * second, 1000) for second in range(int(WINDOW_SECONDS) + 1)]
    assert "10/s 40s left" in str(rate_after(slow + fast))


def test_a_new_attempt_starts_again():
    assert str(rate_after([(0, 0, 48), (10, 40, 48), (20, 0, 48), (30, 10, 48)])) == "10/48 1.0/s 38s left"


@example([(0.0, 0, 10**12), (1e6, 1, 10**12)])
@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(-5, 10**12), st.integers(-5, 10**12))))
def test_any_progress_has_a_share_and_one_line(updates):
    rate = rate_after(sorted(updates))
    assert 0 <= rate.share <= 1
    assert "\n" not in str(rate)
