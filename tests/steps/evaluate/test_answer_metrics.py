"""Scores of answers with known values."""

import pytest

from steps.evaluate.answer_metrics import Scores, mean, score


@pytest.mark.parametrize(
    ("answer", "reference", "exact"),
    [
        ("Paris", "Paris", 1),
        ("the  Paris!", "paris", 1),
        ("An apple, a day", "apple day", 1),
        ("Paris", "London", 0),
        ("Paris, I think", "Paris", 0),
        ("", "Paris", 0),
        ("42", "42.", 1),
    ],
)
def test_exact_match_follows_squad(answer: str, reference: str, exact: int) -> None:
    assert score(answer, reference).exact_match == exact


@pytest.mark.parametrize(
    ("answer", "reference", "rouge"),
    [
        # Lin (2004), section 3: "police kill the gunman" and "the gunman kill police" against the reference.
        ("police kill the gunman", "police killed the gunman", 3 / 4),
        ("the gunman kill police", "police killed the gunman", 2 / 4),
        ("one two three", "one two three", 1),
        ("One, two: three", "one two three", 1),
        ("one two three four", "two four", 2 * (2 / 4) * (2 / 2) / (2 / 4 + 2 / 2)),
        ("runs", "run", 0),
        ("", "one", 0),
        ("Größe zählt nicht", "Die Größe zählt", 2 / 3),
    ],
)
def test_rouge_l(answer: str, reference: str, rouge: float) -> None:
    assert score(answer, reference).rouge_l == pytest.approx(rouge, abs=1e-4)


def test_means() -> None:
    assert mean([Scores(1, 0.5), Scores(0, 0.25), Scores(0, 0.0)]) == Scores(0.3333, 0.25)
    assert mean([]) is None
