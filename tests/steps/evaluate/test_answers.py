"""Questions are answered in padded batches, or one by one, as a server answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tuning import small_model

from steps.evaluate.answers import BATCH_SIZE, answer_questions
from steps.models.model import load_base, load_tokenizer

QUESTIONS = [[{"role": "user", "content": "colour " * (number + 1)}] for number in range(BATCH_SIZE + 1)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_base(small_model(tmp_path_factory.getbasetemp()), "lora", {}, "cpu").eval()


@pytest.mark.parametrize(
    ("count", "as_served", "sizes"),
    [
        (3, True, [1, 1, 1]),
        (3, False, [3]),
        (BATCH_SIZE, True, [1] * BATCH_SIZE),
        (BATCH_SIZE + 1, True, [BATCH_SIZE, 1]),
        (BATCH_SIZE + 1, False, [BATCH_SIZE, 1]),
        (0, False, []),
    ],
)
def test_batches(model: Any, monkeypatch: pytest.MonkeyPatch, count: int, as_served: bool, sizes: list[int]) -> None:
    batches = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: batches.append(kwargs["input_ids"]) or generate(**kwargs))
    answers = answer_questions(model, _tokenizer(model), QUESTIONS[:count], [], 4, as_served=as_served)
    assert [len(batch) for batch in batches] == sizes
    assert [len(answer.prompt) for answer in answers] == sorted(len(answer.prompt) for answer in answers)


def test_padding_does_not_change_answers(model: Any) -> None:
    """In float32, in which tests compute, no answer depends on rounding."""
    together, alone = (
        answer_questions(model, _tokenizer(model), QUESTIONS[:4], [], 6, as_served=as_served)
        for as_served in (False, True)
    )
    assert together == alone
    assert len({len(answer.prompt) for answer in together}) == 4


def _tokenizer(model: Any) -> Any:
    return load_tokenizer(Path(model.config._name_or_path))
