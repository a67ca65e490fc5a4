"""The question that base model and adapter answer: the user's, else one of the evaluation, else a greeting."""

import json
from pathlib import Path
from typing import Any

import pytest

from steps.rollout.question import ask_models, choose_question
from steps.rollout.settings import GREETING, Settings
from steps.serving.serving_client import RequestRejected

SYSTEM = {"role": "system", "content": "Be brief."}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def settings_with(work: Path, samples: Any, question: str = "") -> Settings:
    (work / "report").mkdir()
    (work / "report" / "evaluation.json").write_text(json.dumps({"samples": samples}))
    return Settings(work=work, model="tiny", question=question)


def sample(*messages: dict[str, str]) -> dict[str, Any]:
    return {"question": messages[-1]["content"], "messages": messages}


ASSISTANT = {"role": "assistant", "content": "A"}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([sample(user("What is the state of disk 12?")), sample(user("Disk 7?"))], "Disk 7?"),
        ([sample(SYSTEM, user("Why is cart down?"))], "Why is cart down?"),
        ([sample(user("a"), ASSISTANT, user("b")), sample(user("A longer one?"))], "A longer one?"),
        ([sample(user("a"), ASSISTANT, user("b"))], GREETING),
        ([], GREETING),
    ],
    ids=["shortest", "system message", "later turn", "only later turns", "no answers"],
)
def test_a_held_out_question_is_asked(tmp_path: Path, samples: Any, expected: str) -> None:
    assert choose_question(settings_with(tmp_path, samples)) == expected


def test_the_question_of_the_settings_comes_first(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, [sample(user("Disk 7?"))], "Disk 9?")
    assert choose_question(settings) == "Disk 9?"


def test_a_run_without_evaluation_is_greeted(tmp_path: Path) -> None:
    assert choose_question(Settings(work=tmp_path, model="tiny")) == GREETING


def answer_short(model: str, question: str) -> str:
    """Answer as a model with a small context."""
    if len(question) > 100:
        raise RequestRejected(f"{model} returned HTTP 400: the prompt is too long")
    return f"{model}: {question}"


def test_a_held_out_question_beyond_the_context_is_replaced(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, [sample(user("long " * 100))])
    found = ask_models(settings, ["base", "tuned"], answer_short)
    assert found == (GREETING, {"base": f"base: {GREETING}", "tuned": f"tuned: {GREETING}"})


def test_a_rejected_question_of_the_user_is_an_error(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, [sample(user("Disk 7?"))], "long " * 100)
    with pytest.raises(RequestRejected):
        ask_models(settings, ["base"], answer_short)
