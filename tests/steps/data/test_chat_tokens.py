"""The loss counts each token of the assistant, with the end-of-turn token, and no others."""

from pathlib import Path
from typing import Any

import pytest
import trainable_model
from hypothesis import given, settings
from hypothesis import strategies as st

from steps.data.chat_tokens import IGNORED, prepare, render, stop_ids, tokenize
from steps.data.tokenization import Tokenization
from steps.runtime.errors import BadInput

SYSTEM = {"role": "system", "content": "Be short."}
ASK, ANSWER = {"role": "user", "content": "What is blue?"}, {"role": "assistant", "content": "Number 4."}
MORE, AGAIN = {"role": "user", "content": "Number 4."}, {"role": "assistant", "content": "Again: number 4."}
TALK = [SYSTEM, ASK, ANSWER, MORE, AGAIN]

TRL_TEMPLATES = "chat_templates"
# What each template's model ends a turn with.
ENDS = {
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "phi3": "<|end|>",
    "phi3_5": "<|end|>",
    "qwen2_5": "<|im_end|>",
    "gemma3": "<end_of_turn>",
}


@pytest.fixture
def tokenizer() -> Any:
    made = trainable_model.make_tokenizer()
    made.add_special_tokens({"additional_special_tokens": sorted({*ENDS.values(), "<|user|>", "<|assistant|>"})})
    made.bos_token = "<|endoftext|>"
    return made


def template(name: str) -> str:
    import trl

    return (Path(trl.__file__).parent / TRL_TEMPLATES / f"{name}.jinja").read_text()


def learned(tokenizer: Any, labels: list[int]) -> list[str]:
    """Text of each unbroken run of labels."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def test_assistant_turns_include_the_end_token(tokenizer: Any) -> None:
    row = tokenize(tokenizer, TALK)
    assert learned(tokenizer, row.labels) == ["Number 4.<|im_end|>", "Again: number 4.<|im_end|>"]
    assert row.input_ids == tokenizer.apply_chat_template(TALK, return_dict=True)["input_ids"]
    assert all(label in (IGNORED, token) for token, label in zip(row.input_ids, row.labels, strict=True))


@pytest.mark.parametrize("name", ENDS)
def test_templates_of_other_models(tokenizer: Any, name: str) -> None:
    tokenizer.chat_template = template(name)
    talk = TALK[1:] if name.startswith("gemma") else TALK
    row = tokenize(tokenizer, talk)
    assert learned(tokenizer, row.labels) == [f"Number 4.{ENDS[name]}", f"Again: number 4.{ENDS[name]}"]
    assert tokenizer.convert_tokens_to_ids(ENDS[name]) in stop_ids(tokenizer, [row])


def test_reasoning_model_uses_the_training_template_of_trl(tokenizer: Any) -> None:
    tokenizer.chat_template = template("qwen3")
    turns = learned(tokenizer, tokenize(tokenizer, TALK).labels)
    assert len(turns) == 2
    assert all("<|im_end|>" in turn and "user" not in turn for turn in turns)
    assert learned(tokenizer, tokenize(tokenizer, TALK, learned="last").labels) == turns[-1:]


def test_template_with_generation_markers(tokenizer: Any) -> None:
    tokenizer.chat_template = template("qwen3_training")
    assert len(learned(tokenizer, tokenize(tokenizer, TALK).labels)) == 2


def test_loss_scope_last_turn_or_all(tokenizer: Any) -> None:
    assert learned(tokenizer, tokenize(tokenizer, TALK, learned="last").labels) == ["Again: number 4.<|im_end|>"]
    row = tokenize(tokenizer, TALK, learned="all")
    assert row.labels == row.input_ids


def test_template_without_special_tokens(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert learned(tokenizer, tokenize(tokenizer, TALK).labels) == ["Number 4.", "Again: number 4."]


def test_content_that_the_template_strips(tokenizer: Any) -> None:
    tokenizer.chat_template = template("llama3")
    row = tokenize(tokenizer, [ASK, {"role": "assistant", "content": "  Number 4. \n"}])
    assert learned(tokenizer, row.labels) == ["Number 4.<|eot_id|>"]


def test_empty_answer_is_only_the_end_token(tokenizer: Any) -> None:
    row = tokenize(tokenizer, [ASK, {"role": "assistant", "content": ""}])
    assert learned(tokenizer, row.labels) == ["<|im_end|>"]


def test_template_whose_generation_prompt_differs(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}<go>{% endif %}"
    )
    with pytest.raises(BadInput, match="row 1"):
        tokenize(tokenizer, TALK)


def test_no_template(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(BadInput, match="no chat template"):
        render(tokenizer, TALK)


def test_row_that_the_template_rejects(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadInput, match=r"row 2.*roles must alternate"):
        render(tokenizer, TALK, number=2)


def test_rows_are_truncated_and_counted(tokenizer: Any) -> None:
    short, long = [ASK, ANSWER], [SYSTEM, *[ASK] * 9, ANSWER]
    length = len(tokenize(tokenizer, TALK[:3]).input_ids)
    prepared = prepare(tokenizer, [short, TALK, long], Tokenization(length))
    assert list(prepared.numbers) == [0, 1]
    assert prepared.rows == [tokenize(tokenizer, short), tokenize(tokenizer, TALK).truncate(length)]
    assert prepared.truncated == 1
    assert prepared.longest == len(tokenize(tokenizer, long).input_ids)
    assert prepared.warnings(3, length) == [
        f"of 3 rows, 1 truncated to {length} tokens and 1 dropped because no assistant token remains "
        f"(longest row: {prepared.longest} tokens; increase max_length)"
    ]
    assert prepare(tokenizer, [short], Tokenization(length)).warnings(1, length) == []


def test_rows_without_a_stop_token_are_counted(tokenizer: Any) -> None:
    tokenizer.chat_template = (  # as of Falcon: no token ends an answer
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    prepared = prepare(tokenizer, [TALK, [ASK, ANSWER]], Tokenization(512))
    assert prepared.warnings(2, 512) == ["2 rows contain no learned stop token: the model may not learn to stop"]


def test_truncation_can_keep_the_end(tokenizer: Any) -> None:
    row = tokenize(tokenizer, TALK)
    assert row.truncate(5, "keep_end").input_ids == row.input_ids[-5:]
    assert row.truncate(5).labels == row.labels[:5]


def test_no_row_fits(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="max_length=4 truncates all assistant tokens in all 2 rows") as caught:
        prepare(tokenizer, [TALK, [ASK, ANSWER]], Tokenization(4))
    assert f"longest row: {len(tokenize(tokenizer, TALK).input_ids)} tokens" in caught.value.fix


def test_rows_without_assistant_turn(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match="assistant message"):
        prepare(tokenizer, [[ASK], [SYSTEM, ASK]], Tokenization(100))


ANSWERS = st.text(st.sampled_from([*"abc .\n\t ", "\u00e9", "\u4e2d", "\U0001f600"]), max_size=12)


@pytest.mark.parametrize("name", ["", *ENDS])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
@settings(max_examples=100)
def test_each_answer_has_loss_without_gaps_up_to_its_end(tokenizer: Any, name: str, answers: list[str]) -> None:
    """Also answers that are empty, or begin or end in white space."""
    tokenizer.chat_template = template(name) if name else tokenizer.chat_template
    row = [turn for answer in answers for turn in (ASK, {"role": "assistant", "content": answer})]
    text = render(tokenizer, row)
    expected = []
    for index in range(1, len(row), 2):
        rest = text.removeprefix(render(tokenizer, row[:index], prompt=True))
        end = ENDS.get(name, "<|im_end|>")
        expected.append(rest[: rest.index(end) + len(end)])
    assert learned(tokenizer, tokenize(tokenizer, row).labels) == expected
