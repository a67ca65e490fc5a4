"""The end of a run on the terminal."""

from __future__ import annotations

import pytest

from workflows.runs import answers, result
from workflows.runs.answers import Sample
from workflows.runs.status import RunStatus
from workflows.runs.step import Step

LONG = "word " * 300


@pytest.mark.parametrize(
    ("question", "expected"),
    [("one?", ["two?", LONG[:1000]]), (LONG, ["one?", "two?"]), ("", ["one?", "two?"])],
    ids=["the first sample", "a cut sample", "no question"],
)
def test_two_samples_besides_the_question_are_shown(
    question: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Sample] = []
    monkeypatch.setattr(answers, "print_answers", lambda *_, samples: shown.extend(samples))
    outputs = {"endpoint": "http://127.0.0.1:8000", "question": question}
    step = Step(key="rollout", type="Pod", phase="Succeeded", outputs=outputs)
    samples = [Sample(text, "base", "adapter") for text in ("one?", "two?", LONG[:1000])]
    result.print_answers(RunStatus(name="oncall", phase="Succeeded", steps=[step]), samples=samples)
    assert [sample.question for sample in shown] == expected
