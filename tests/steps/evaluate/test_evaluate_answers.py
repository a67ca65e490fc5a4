"""Few questions are answered one by one, as a server does, and many in padded batches."""

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
    ("count", "sizes"), [(0, []), (3, [1] * 3), (BATCH_SIZE, [1] * BATCH_SIZE), (BATCH_SIZE + 1, [BATCH_SIZE, 1])]
)
def test_batches(model: Any, monkeypatch: pytest.MonkeyPatch, count: int, sizes: list[int]) -> None:
    batches = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda **kwargs: batches.append(kwargs["input_ids"]) or generate(**kwargs))
    answers = answer_questions(model, _tokenizer(model), QUESTIONS[:count], [], 4)
    assert [len(batch) for batch in batches] == sizes
    assert len(answers) == count


def test_padding_does_not_change_answers(model: Any) -> None:
    """In float32, in which tests compute, no answer depends on rounding."""
    together = answer_questions(model, _tokenizer(model), QUESTIONS, [], 6)
    alone = [answer_questions(model, _tokenizer(model), [question], [], 6)[0] for question in QUESTIONS]
    assert together == alone
    assert len({len(answer.prompt) for answer in together}) == len(QUESTIONS)


def _tokenizer(model: Any) -> Any:
    return load_tokenizer(Path(model.config._name_or_path))
