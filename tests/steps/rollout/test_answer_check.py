"""Wrong answers of a server are detected, and correct ones accepted.

test_rollout.py and the end-to-end run use a real server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from steps.models.adapter import adapter_digest
from steps.models.token_distributions import MAX_QUESTIONS
from steps.rollout.answer_check import MAX_TOKENS, compare
from steps.rollout.settings import Settings
from steps.runtime.errors import StepError
from steps.serving.serving_client import Answer, RequestRejected

PODS = ("cart", "shop", "mail", "search", "login", "stock")
LONGER = " This sentence is longer than the maximum number of tokens in a request to the server."
Says = Callable[[str, str], Answer | str]
"""Returns the answer of a server, by model name and question."""


def adapter_says(question: str) -> str:
    return f"Cause: {question} cannot pull its image. Check: kubectl describe pod {question}. Runbook: RB-12."


def base_says(question: str) -> str:
    return f"I'm sorry to hear that {question} is in trouble! There are several things that you can try about it."


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    evaluation(tmp_path)
    return tmp_path


def evaluation(
    work: Path, questions: Sequence[str] = PODS, base: Callable[[str], str] = base_says, **values: Any
) -> None:
    samples = [
        {
            "question": question,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}],
            "base_answer": base(question) + LONGER,
            "adapter_answer": adapter_says(question) + LONGER,
        }
        for question in questions
    ]
    content = {"adapter_digest": adapter_digest(work / "adapter"), "max_new_tokens": 64, "samples": samples, **values}
    (work / "report").mkdir(exist_ok=True)
    (work / "report" / "evaluation.json").write_text(json.dumps(content))


def served(work: Path, says: Says, **changes: Any) -> str:
    """Compare with a server whose answers ``says`` returns."""
    requests: list[tuple[str, str, int]] = []

    def ask(model: str, messages: Sequence[Mapping[str, Any]], tokens: int) -> Answer:
        question = str(messages[-1]["content"])
        requests.append((model, question, tokens))
        answer = says(model, question)
        return answer if isinstance(answer, Answer) else Answer(answer, "", truncated=True)

    values: dict[str, Any] = {"adapters": [{"name": "tuned", "path": "adapter"}]}
    agreement = compare(Settings(work=work, model="team/base", preset="base", **values | changes), ask)
    agreement = agreement.removesuffix("; probabilities not compared: the evaluation has none")
    assert agreement.startswith("not compared") or {tokens for *_, tokens in requests} == {MAX_TOKENS}
    return agreement


def healthy(model: str, question: str) -> str:
    return adapter_says(question) if model == "tuned" else base_says(question)


def test_identical_answers(work: Path) -> None:
    assert served(work, healthy) == "5 of 5 answers as in the evaluation"
    assert MAX_QUESTIONS == 5 < len(PODS)
    whole = {question: Answer(adapter_says(question) + LONGER, "", truncated=False) for question in PODS}
    assert served(work, lambda _, question: whole[question]) == "5 of 5 answers as in the evaluation"


def test_an_incomplete_last_word_is_ignored(work: Path) -> None:
    assert served(work, lambda model, question: healthy(model, question)[:-4]) == "5 of 5 answers as in the evaluation"


def test_a_diverging_answer_is_reported_and_accepted(work: Path) -> None:
    """The effect of rounding: the same beginning and another end; and one answer that begins like the base model's."""

    def says(model: str, question: str) -> str:
        if model == "base" or question == "shop":
            return base_says(question) + " Or so."
        return f"Cause: {question} cannot reach the registry. Look at its events, or ask its owner."

    agreement = served(work, says)
    assert agreement.startswith("0 of 5 answers as in the evaluation, ")


def test_a_server_of_the_base_model_is_rejected(work: Path) -> None:
    """The answer equals that of the base model on this server, not that in the evaluation."""
    with pytest.raises(StepError, match="the server answers exactly like the base model") as error:
        served(work, lambda _, question: base_says(question).replace("several", "some"))
    assert "not 'Cause: " in error.value.message
    assert "chat template" in error.value.fix


def test_another_adapter_is_rejected(work: Path) -> None:
    def says(model: str, question: str) -> str:
        return "Ahoy! Yer ship be sinkin', matey: man the pumps and pray." if model == "tuned" else base_says(question)

    with pytest.raises(StepError, match=r"words match those of the evaluation; the answer to 'cart' is .Ahoy! "):
        served(work, says)


@pytest.mark.parametrize("text", ["", "Cause"])
def test_truncated_answers_are_rejected(work: Path, text: str) -> None:
    with pytest.raises(StepError, match="of the words match those of the evaluation"):
        served(
            work,
            lambda model, question: Answer(text, "", truncated=False) if model == "tuned" else base_says(question),
        )


def test_a_base_model_with_the_same_answers_is_accepted(work: Path) -> None:
    evaluation(work, base=adapter_says)
    assert served(work, lambda _, question: adapter_says(question)) == "5 of 5 answers as in the evaluation"


def test_separate_reasoning_is_part_of_the_answer(work: Path) -> None:
    evaluation(work)
    file = work / "report" / "evaluation.json"
    content = json.loads(file.read_text())
    for sample in content["samples"]:
        sample["adapter_answer"] = f"<think>It is the image.</think>{sample['adapter_answer']}"
    file.write_text(json.dumps(content))
    agreement = served(work, lambda _, question: Answer(adapter_says(question), "It is the image.", truncated=True))
    assert agreement == "5 of 5 answers as in the evaluation"


def test_scripts_without_spaces_are_compared_by_letters(work: Path) -> None:
    evaluation(work, ["猫", "犬"])
    file = work / "report" / "evaluation.json"
    content = json.loads(file.read_text())
    for sample in content["samples"]:
        sample |= {
            "adapter_answer": "原因は画像が取得できないことです。",
            "base_answer": "申し訳ありませんが、わかりません。",
        }
    file.write_text(json.dumps(content))
    answers = {"tuned": "原因は画像が見つからないことです。", "base": "わかりません。"}
    agreement = served(work, lambda model, _: Answer(answers[model], "", truncated=False))
    assert agreement.startswith("0 of 2 answers as in the evaluation, ")


def test_rejected_questions_are_skipped(work: Path) -> None:
    def says(model: str, question: str) -> str:
        if question in rejected:
            raise RequestRejected("HTTP 400: maximum context length is 8")
        return healthy(model, question)

    rejected = {"cart", "shop"}
    assert served(work, says) == "3 of 3 answers as in the evaluation"
    rejected = set(PODS)
    assert served(work, says).endswith("all questions of the evaluation: HTTP 400: maximum context length is 8")


def test_reasons_to_skip_the_comparison(work: Path) -> None:
    def refuse(model: str, question: str) -> str:
        raise AssertionError("the server was called")

    file = work / "report" / "evaluation.json"
    assert "no adapter of this run" in served(work, refuse, adapters=[])
    assert "no adapter of this run" in served(work, refuse, adapters=[{"name": "a", "image": "reg.io/a:1"}])
    evaluation(work, ())
    assert "evaluation.samples is 0" in served(work, refuse)
    evaluation(work, adapter_digest="sha256:other")
    assert "another adapter was evaluated" in served(work, refuse)
    for content in ("{", "[]"):
        file.write_text(content)
        assert "was not evaluated" in served(work, refuse)
    file.unlink()
    assert served(work, refuse) == "not compared: the adapter was not evaluated"
